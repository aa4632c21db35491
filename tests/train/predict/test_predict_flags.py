"""Each flag of `bcss-train predict` does what its help says, and those for speed change no result."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from prep.sample.flat_tissue import draw_flat
from tests.folders import bytes_of
from tests.train.predict.conftest import rectangle, run_predict, write_geojson
from train.backbone.nano_start import NANO_START
from train.model.predictor import Prediction
from train.predict import ImagePredictor, load_predictor
from train.predict.automatic import AutomaticOptions
from train.predict.prompted import predict_prompted
from train.predict.search import SearchProgress, search
from train.predict.settings import PromptOptions
from train.prompts.object_prompt import ObjectPrompt
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

SIDE = 256
SEARCH = ("--automatic", "--grid", "3", "--iou-threshold", "0.2", "--stability-threshold", "0.5")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic tissue of 256 px at 0.25 um per pixel, which is one window of the start."""
    path = tmp_path_factory.mktemp("picture") / "roi.png"
    Image.fromarray(draw_flat(SIDE, SIDE, np.random.default_rng(0))[0]).save(path)
    return path


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "roi.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _largest_iou_of_boxes(rows: list[dict[str, str]]) -> float:
    boxes = np.array([[float(row[name]) for name in ("x0", "y0", "x1", "y1")] for row in rows])
    boxes[:, 2:] += 1
    starts = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.clip(ends - starts, 0, None), 2)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return float((common / (areas[:, None] + areas - common))[~np.eye(len(rows), dtype=bool)].max())


def test_nms_leaves_no_boxes_that_overlap_more(picture: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    found: list[list[dict[str, str]]] = []
    for nms in ("0.4", "1"):
        out = tmp_path / nms
        assert (
            run_predict(monkeypatch, NANO_START, picture, *SEARCH, "--nms", nms, "--format", "csv", "--out", out) == 0
        )
        found.append(_rows(out))
        (line,) = capsys.readouterr().out.splitlines()
        assert re.match(
            rf"roi: {len(found[-1])} objects\b.*; \d+\.\d s, \d+\.\d\d Mpx/s; .*{re.escape(str(out))}", line
        )
    assert 1 < len(found[0]) < len(found[1])
    assert _largest_iou_of_boxes(found[0]) <= 0.4 < _largest_iou_of_boxes(found[1])


def test_flags_for_speed_change_no_result(picture: Path, tmp_path: Path, monkeypatch) -> None:
    with Image.open(picture) as image:
        image.resize((300, 300)).save(tmp_path / "roi.png")
    results: list[dict[str, bytes]] = []
    for number, flags in enumerate(((), ("--workers", "3"), ("--batch-size", "2"))):
        out = tmp_path / str(number)
        assert run_predict(monkeypatch, NANO_START, tmp_path / "roi.png", *SEARCH, *flags, "--out", out) == 0
        results.append({name: data for name, data in bytes_of(out).items() if not name.startswith(".")})
    assert len(_rows(tmp_path / "0")) > 1
    assert results[1] == results[0]
    assert results[2] == results[0]


def test_mpp_works_on_the_image_at_that_resolution(picture: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "half").mkdir()
    with Image.open(picture) as image:
        half = cv2.resize(np.asarray(image), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    Image.fromarray(half).save(tmp_path / "half" / "roi.png")
    found: list[NDArray[np.uint8]] = []
    for source, factor in ((picture, 2), (tmp_path / "half" / "roi.png", 1)):
        box = tuple(value * factor for value in (30, 20, 70, 60))
        write_geojson(tmp_path / "p.geojson", [rectangle((box[0], box[1], box[2], box[3]))])
        out = tmp_path / str(factor)
        flags = ("--mpp", "0.5", "--source-mpp", 0.5 / factor, "--format", "masks", "--out", out)
        assert run_predict(monkeypatch, NANO_START, source, "--prompts", tmp_path / "p.geojson", *flags) == 0
        with Image.open(out / "roi.labels.png") as labels:
            found.append(np.asarray(labels))
    assert found[1].any()
    np.testing.assert_array_equal(found[0], found[1].repeat(2, 0).repeat(2, 1))


def test_tta_averages_all_eight_views(
    trained_predictor: ImagePredictor, picture: Path, tmp_path: Path, monkeypatch
) -> None:
    write_geojson(tmp_path / "p.geojson", [rectangle((60, 40, 140, 120))])
    with Image.open(picture) as image:
        pixels = np.array(image)
    coords, labels = torch.tensor([[[60.0, 40.0], [139.0, 119.0]]]), torch.tensor([[2, 3]], dtype=torch.int32)
    masks: list[NDArray[np.bool_]] = []
    for flags in ((), ("--tta",)):
        out = tmp_path / f"out{len(flags)}"
        given = (NANO_START, picture, "--prompts", tmp_path / "p.geojson", *flags, "--out", out)
        assert run_predict(monkeypatch, *given) == 0
        expected = trained_predictor.predict(trained_predictor.views(pixels, all_eight=bool(flags)), coords, labels)
        with Image.open(out / "roi.labels.png") as image:
            masks.append(np.asarray(image) > 0)
        np.testing.assert_array_equal(masks[-1], expected.masks()[0])
        assert float(_rows(out)[0]["iou"]) == pytest.approx(float(expected.ious[0]), abs=1e-4)
    assert (masks[0] != masks[1]).any()


class _Oracle:
    """A model that finds what is white, and counts the windows that it has seen."""

    model, device = SimpleNamespace(image_size=64), torch.device("cpu")

    def __init__(self) -> None:
        self.seen = 0

    def views(self, image: NDArray[np.uint8], *, all_eight: bool) -> list[NDArray[np.uint8]]:
        self.seen += 1
        return [image]

    def _logits(self, views: list[NDArray[np.uint8]]) -> torch.Tensor:
        small = cv2.resize(views[0][..., 0], (16, 16), interpolation=cv2.INTER_AREA)
        return (torch.from_numpy(small).float() - 127.5) / 10

    def predict(self, views: Any, coords: Any, labels: Any, side: int, mask_logits: Any) -> Prediction:
        return Prediction(self._logits(views).repeat(len(coords), 1, 1), torch.ones(len(coords)), (side, side))

    def candidates(self, views: Any, coords: Any, labels: Any, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._logits(views).repeat(len(coords), 1, 1, 1), torch.ones(len(coords), 1)


def test_a_line_counts_the_candidates_that_each_threshold_left_out(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Boxes never exclude each other with --nms 1, so all masks that pass both thresholds are objects.
    flags = ("--automatic", "--grid", "3", "--iou-threshold", "0.5", "--stability-threshold", "0.8", "--nms", "1")
    caplog.set_level("INFO")
    assert run_predict(monkeypatch, NANO_START, picture, "--out", tmp_path, *flags) == 0
    (line,) = [message for message in caplog.messages if "candidate masks" in message]
    total, unlikely, unstable = (int(number) for number in re.findall(r"(\d+) (?:candidate|have an IoU|others)", line))
    assert total == 3 * 3 * 3
    assert min(unlikely, unstable) > 0
    assert total - unlikely - unstable == len(_rows(tmp_path)) > 0


def test_click_on_a_large_object_gets_a_wider_window() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[64:224, 128:256] = 255
    grid = WorkingGrid.of(Picture(image))
    (found,) = predict_prompted(
        cast("Any", _Oracle()), grid, [ObjectPrompt("1", None, (((150.0, 100.0), True),))], PromptOptions(64)
    )
    assert found is not None
    mask = found.within((0, 0, 400, 400))
    assert np.mean(mask == (image[..., 0] > 0)) > 0.98
    # A box says how large the object is, so its window is not widened.
    (found,) = predict_prompted(
        cast("Any", _Oracle()), grid, [ObjectPrompt("1", (140, 80, 180, 120))], PromptOptions(64)
    )
    assert found is not None
    assert max(found.size_xy) <= 64


@pytest.mark.parametrize(("overlap", "windows"), [(0.0, 2 * 3), (0.5, 3 * 5)])
def test_windows_overlap_as_asked(overlap: float, windows: int) -> None:
    model, steps = _Oracle(), list[SearchProgress]()
    grid = WorkingGrid.of(Picture(np.full((128, 192, 3), 250, np.uint8)))
    list(search(cast("Any", model), grid, 64, AutomaticOptions(2, 0.0, 0.0), overlap, on_window=steps.append))
    assert [step.done for step in steps] == list(range(1, windows + 1))
    assert {step.total for step in steps} == {windows}
    assert steps[-1].pixels == windows * 64 * 64
    assert model.seen == windows


@pytest.mark.parametrize(("flag", "value"), [("--threshold", "nan"), ("--mpp", "inf"), ("--source-mpp", "inf")])
def test_numbers_that_are_not_finite_are_refused(
    picture: Path, tmp_path: Path, monkeypatch, capsys, flag: str, value: str
) -> None:
    assert run_predict(monkeypatch, NANO_START, picture, *SEARCH, flag, value, "--out", tmp_path / "out") == 2
    assert "is not a finite number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_objects_of_an_image_smaller_than_a_window_are_found_once(picture: Path) -> None:
    predictor = load_predictor(NANO_START, torch.device("cpu"))
    with Image.open(picture) as whole:
        grid = WorkingGrid.of(Picture(np.asarray(whole)[:90, :100]))
    options = AutomaticOptions(6, 0.2, 0.3, 1.0)
    found = list(search(predictor, grid, predictor.window_px, options))
    assert len(found) > 3
    masks = [item.within((0, 0, 100, 90)).ravel() for item in found]
    for first, second in itertools.combinations(masks, 2):
        assert (first & second).sum() <= 0.5 * max(first.sum(), second.sum())
