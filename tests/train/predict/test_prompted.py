"""Prompted objects that are larger than a window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from train.model.predictor import Prediction
from train.predict import prompted
from train.predict import window as window_module
from train.predict.prompted import predict_prompted
from train.predict.settings import PromptOptions
from train.prompts.object_prompt import ObjectPrompt
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

ALL = "geojson,masks,coco,csv,overlay"
EVERYTHING = ["--automatic", "--grid", "4", "--iou-threshold", "0", "--stability-threshold", "0"]


class _Scripted:
    """A model that answers a prompt without a mask with a square, and one with a mask with nothing."""

    model, device = SimpleNamespace(image_size=64), torch.device("cpu")

    def views(self, image: NDArray[np.uint8], *, all_eight: bool) -> list[NDArray[np.uint8]]:
        return [image]

    def predict(self, views: Any, coords: Any, labels: Any, side: int, mask_logits: Any) -> Prediction:
        logits = torch.full((len(coords), 16, 16), -10.0)
        if mask_logits is None:
            logits[:, 2:11, 2:11] = 10.0
        return Prediction(logits, torch.ones(len(coords)), (side, side))


def test_wide_object_is_refined_only_near_its_outline() -> None:
    grid = WorkingGrid.of(Picture(np.zeros((200, 200, 3), np.uint8)))
    asked = ObjectPrompt("1", (30.0, 30.0, 178.0, 178.0))
    (found,) = predict_prompted(cast("Any", _Scripted()), grid, [asked], PromptOptions(64))
    # A pixel of the coarse logits is 16 px wide, and the coarse square goes from 32 to 176.
    assert found is not None
    assert found.box == (40, 40, 168, 168)
    assert found.mask[4:-4].all()
    assert found.mask[:, 4:-4].all()


class _Everywhere(_Scripted):
    """A model that finds its object everywhere."""

    def predict(self, views: Any, coords: Any, labels: Any, side: int, mask_logits: Any) -> Prediction:
        return Prediction(torch.full((len(coords), 16, 16), 10.0), torch.ones(len(coords)), (side, side))


def test_object_that_no_window_holds_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for module in (prompted, window_module):
        monkeypatch.setattr(module, "WIDEST_PX", 256)
    grid = WorkingGrid.of(Picture(np.zeros((600, 600, 3), np.uint8)))
    asked = [ObjectPrompt(f"box {side}", (20.0, 20.0, 20.0 + side, 40.0)) for side in (250, 260, 500, 40)]
    steps: list[tuple[int, int, int]] = []
    found = predict_prompted(cast("Any", _Scripted()), grid, asked, PromptOptions(64), lambda *step: steps.append(step))
    assert [item is not None for item in found] == [True, False, False, True]
    assert caplog.messages == [
        "image: prompts that are larger than the widest window, 256 px, are not predicted: 2, such as box 260; "
        "work at a lower resolution (--mpp)"
    ]
    assert steps[-1] == (4, 4, 256**2 + 64**2)
    # A click shows how large its object is only by its mask.
    click = ObjectPrompt("click", None, (((300.0, 300.0), True),))
    (cut,) = predict_prompted(cast("Any", _Everywhere()), grid, [click], PromptOptions(64))
    assert cut is not None
    assert cut.box[0] > 100
    assert "the object click is cut, because it reaches an edge of the widest window, 256 px" in caplog.messages[1]
    # An image that one window holds limits all objects, however large their boxes are.
    small = WorkingGrid.of(Picture(np.zeros((100, 100, 3), np.uint8)))
    (found_inside,) = predict_prompted(cast("Any", _Scripted()), small, [asked[2]], PromptOptions(64))
    assert found_inside is not None
    assert len(caplog.messages) == 2


def test_all_clicks_stay_in_a_wider_window() -> None:
    asked_with: list[int] = []

    class Counting(_Everywhere):
        def predict(self, views: Any, coords: Any, labels: Any, side: int, mask_logits: Any) -> Prediction:
            asked_with.extend((labels >= 0).sum(1).tolist())
            return super().predict(views, coords, labels, side, mask_logits)

    grid = WorkingGrid.of(Picture(np.zeros((2000, 2000, 3), np.uint8)))
    clicks = ObjectPrompt("1", None, (((1150.0, 900.0), True), ((1393.0, 900.0), True)))
    predict_prompted(cast("Any", Counting()), grid, [clicks], PromptOptions(256))
    assert len(asked_with) > 2
    assert set(asked_with) == {2}
