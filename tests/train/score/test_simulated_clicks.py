from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sam2.modeling.sam2_utils import sample_one_point_from_error_center
from scipy import ndimage
from torch import Tensor

from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store
from train.model.predictor import MaskPredictor, Prediction, View
from train.model.promptable import PromptableSam
from train.score.answers import score_tiles, tile_prompts, tiles_with_objects
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.scored_once import ScoredOnce
from train.score.simulated_clicks import FED_BACK_LIMIT, click_scores, next_click
from train.transforms.sample import pad_prompts


def _blobs(seed: int, level: float = 0.05) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return ndimage.gaussian_filter(generator.normal(size=(40, 50)), 2.5) > level


EVERYWHERE = np.ones((40, 50), bool)


@given(st.integers(0, 10_000))
def test_the_click_is_that_of_sam_2(seed: int) -> None:
    truth, mask = _blobs(seed), _blobs(seed + 1)
    points, labels = sample_one_point_from_error_center(
        torch.from_numpy(truth)[None, None], torch.from_numpy(mask)[None, None]
    )
    click = next_click(truth, mask, EVERYWHERE)
    assert click is not None
    assert ([click.x, click.y], int(click.positive)) == (points[0, 0].tolist(), labels[0, 0].item())


@given(st.integers(0, 10_000))
def test_ignored_and_clicked_pixels_are_left_out(seed: int) -> None:
    truth, mask, counted = _blobs(seed), _blobs(seed + 1), ~_blobs(seed + 2, 0.1)
    clicked: set[tuple[int, int]] = set()
    for _ in range(5):
        click = next_click(truth, mask, counted, clicked)
        if click is None:
            return
        assert counted[click.y, click.x]
        assert truth[click.y, click.x] == click.positive
        assert mask[click.y, click.x] != click.positive
        assert (click.x, click.y) not in clicked
        clicked.add((click.x, click.y))


def test_where_nothing_is_wrong_there_is_no_click() -> None:
    truth = _blobs(0)
    assert next_click(truth, truth, EVERYWHERE) is None
    one = truth.copy()
    one[0, 0] ^= True
    click = next_click(truth, one, EVERYWHERE)
    assert click is not None
    assert (click.x, click.y) == (0, 0)
    assert next_click(truth, one, EVERYWHERE, {(0, 0)}) is None


class Recorder(MaskPredictor):
    """A predictor that returns given logits, and records the points and logits of each call."""

    def __init__(self, model: PromptableSam, logits: Tensor) -> None:
        super().__init__(model, torch.device("cpu"))
        self.logits = logits
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def predict(
        self,
        views: Sequence[View],
        coords: Tensor,
        labels: Tensor,
        size_px: Any = None,
        mask_logits: Tensor | None = None,
    ) -> Prediction:
        self.asked.append((coords, labels, mask_logits))
        return Prediction(self.logits, torch.ones(len(coords)))


@pytest.fixture
def case(store: Store) -> Any:
    """A tile with several objects, its prompts, and logits that are right only for the first object.

    The center of every object and of its background is ignored, since a click would fall there otherwise.
    """
    record = next(r for r in store if len(r.object_ids) > 1 and r.ignore.any())
    ignore = record.ignore.copy()
    nothing = np.zeros_like(record.ignore)
    for region in (*record.segments, *~record.segments):
        click = next_click(region, nothing, ~nothing)
        x, y = (click.x, click.y) if click else (0, 0)
        ignore[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    record = replace(record, ignore=ignore)
    prompt = pad_prompts(tile_prompts(store, record, "multi_point", negatives=True))
    logits = torch.from_numpy(record.segments).float() * 20 - 10
    logits[1:] = -10
    return record, prompt, logits


def test_clicks_are_put_behind_real_points_on_errors_that_count(nano: PromptableSam, case: Any) -> None:
    record, (coords, labels), logits = case
    recorder = Recorder(nano, logits)
    first = Prediction(logits, torch.ones(len(logits)))
    list(click_scores(recorder, [], record, (coords, labels), first, 2))
    assert len(recorder.asked) == 2
    for number, (asked_coords, asked_labels, before) in enumerate(recorder.asked, start=1):
        assert before is not None
        for row in range(len(logits)):
            own = labels[row] != PointLabel.PADDING
            count = int(own.sum())
            real = asked_labels[row] != PointLabel.PADDING
            # The first object has no error, and so no click.
            clicks = number if row else 0
            assert real.nonzero()[:, 0].tolist() == list(range(count + clicks))
            assert torch.equal(asked_coords[row, :count], coords[row, :count])
            assert torch.equal(asked_labels[row, :count], labels[row, :count])
            for x, y in asked_coords[row, count : count + clicks].long().tolist():
                assert record.segments[row, y, x]
                assert not record.ignore[y, x]
            assert (asked_labels[row, count : count + clicks] == PointLabel.POSITIVE).all()


def test_a_click_on_background_is_negative(nano: PromptableSam, case: Any) -> None:
    record, (coords, labels), logits = case
    everything = torch.full_like(logits, 10)
    recorder = Recorder(nano, everything)
    list(click_scores(recorder, [], record, (coords, labels), Prediction(everything, torch.ones(len(logits))), 1))
    asked_coords, asked_labels, _ = recorder.asked[0]
    for row in range(len(logits)):
        count = int((labels[row] != PointLabel.PADDING).sum())
        x, y = asked_coords[row, count].long().tolist()
        assert not record.segments[row, y, x]
        assert not record.ignore[y, x]
        assert asked_labels[row, count] == PointLabel.NEGATIVE


def test_an_error_is_one_at_the_given_threshold(nano: PromptableSam, case: Any) -> None:
    record, (coords, labels), _ = case
    logits = torch.from_numpy(record.segments).float() * 3 + 1
    recorder = Recorder(nano, logits)
    first = Prediction(logits, torch.ones(len(logits)))
    (scores,) = click_scores(recorder, [], record, (coords, labels), first, 1, threshold=2.0)
    assert (scores.dice == 1).all()
    _, asked_labels, _ = recorder.asked[0]
    assert torch.equal((asked_labels != PointLabel.PADDING).sum(1), (labels != PointLabel.PADDING).sum(1))


def test_an_object_without_error_keeps_its_mask(nano: PromptableSam, case: Any) -> None:
    record, prompt, logits = case
    worse = Recorder(nano, torch.full_like(logits, -10))
    (scores,) = click_scores(worse, [], record, prompt, Prediction(logits, torch.ones(len(logits))), 1)
    assert scores.dice[0] == 1
    assert (scores.dice[1:] == 0).all()


def test_logits_that_are_fed_back_are_clamped(nano: PromptableSam, case: Any) -> None:
    record, prompt, logits = case
    recorder = Recorder(nano, logits)
    list(click_scores(recorder, [], record, prompt, Prediction(logits * 10, torch.ones(len(logits))), 1))
    ((_, _, fed_back),) = recorder.asked
    assert fed_back is not None
    assert torch.equal(fed_back, (logits * 10).clamp(-FED_BACK_LIMIT, FED_BACK_LIMIT))
    assert fed_back.abs().max() == 32


class Scripted(MaskPredictor):
    """A predictor whose logits depend on nothing but the number of objects and points.

    A model's logits differ in the last bits from pass to pass, and can so move a click from one pixel to another.
    """

    def predict(
        self,
        views: Sequence[View],
        coords: Tensor,
        labels: Tensor,
        size_px: Any = None,
        mask_logits: Tensor | None = None,
    ) -> Prediction:
        generator = torch.Generator().manual_seed(coords.shape[1])
        return Prediction(torch.randn(len(coords), 32, 32, generator=generator), torch.ones(len(coords)))


def test_dice_is_reported_after_the_prompt_and_each_click(store: Store, nano: PromptableSam) -> None:
    predictor = Scripted(nano, torch.device("cpu"))
    tiles = tiles_with_objects(store, "val")[:2].tolist()
    once = ScoredOnce(store, tiles_with_objects(store, "val"))
    for scored in score_tiles(store, tiles, {"m": predictor}, ScoringProtocol("val", ("centroid",), corrections=2)):
        answer, record = scored.answer, once.counted(scored.record)
        kept = once.kept(record)
        clicks, dice = scored.scores.clicks_dice, scored.scores.dice
        if answer.model != "m":
            # A baseline has nothing to correct with.
            np.testing.assert_array_equal(clicks, dice[:, None])
            continue
        assert clicks.shape == (len(dice), 3)
        np.testing.assert_array_equal(clicks[:, 0], dice)
        prompt = pad_prompts(answer.question.prompts)
        assert answer.prediction is not None
        views = predictor.views(record.image)
        found = click_scores(predictor, views, record, prompt, answer.prediction, 2)
        for number, after in enumerate(found, start=1):
            np.testing.assert_allclose(after.dice[kept], clicks[:, number], atol=1e-9)
            np.testing.assert_allclose(after.iou[kept], scored.scores.clicks_iou[:, number], atol=1e-9)
        assert score_masks(answer.masks, record.segments, record.ignore).dice[kept].tolist() == dice.tolist()
