from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import CheckpointError, ConfigError
from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store
from train.model.loading import load_predictors
from train.model.predictor import MaskPredictor, Prediction, View
from train.model.promptable import PromptableSam
from train.score.answers import tile_prompts
from train.transforms.geometry import crop, resize, scale_points
from train.transforms.orientation import Orientation
from train.transforms.sample import pad_prompts, read_sample

CPU = torch.device("cpu")


@pytest.fixture
def case(store: Store) -> Any:
    """An image, and three padded prompts for it: a box, a click and several points."""
    record = next(record for record in store if len(record.object_ids) >= 3)
    kinds = ("box", "centroid", "multi_point")
    prompts = [tile_prompts(store, record, kind, negatives=False)[row] for row, kind in enumerate(kinds)]
    return record.image, *pad_prompts(prompts)


def test_first_view_is_the_unchanged_image(nano: PromptableSam, case: Any) -> None:
    image, coords, labels = case
    predictor = MaskPredictor(nano, CPU)
    plain = predictor.predict(predictor.views(image), coords, labels, 128)
    views = predictor.views(image, all_eight=True)
    assert len(views) == 8
    assert torch.equal(predictor.predict(views[:1], coords, labels, 128).logits, plain.logits)
    assert (predictor.predict(views, coords, labels, 128).logits - plain.logits).abs().max() > 1e-3


@pytest.mark.parametrize("given", [None, (96, 160), 96, 160], ids=str)
def test_image_that_is_not_square_has_masks_of_its_own_shape(
    nano: PromptableSam, given: int | tuple[int, int] | None
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    coords, labels = torch.tensor([[[120.0, 30.0]]]), torch.tensor([[1]], dtype=torch.int32)
    predictor = MaskPredictor(nano, CPU)
    views = predictor.views(image)
    answer = predictor.predict(views, coords, labels, given)
    masks = answer.masks(given)
    assert masks.shape == (1, 96, 160)
    # Meta's predictor sees the same image, as a square of its input size, with x and y scaled each on its own.
    square = predictor.predict(views, scale_points(coords, (160, 96), (128, 128)), labels, (128, 128))
    assert torch.equal(answer.logits, square.logits)
    for refused in (lambda: answer.masks(100), lambda: predictor.predict(views, coords, labels, 100)):
        with pytest.raises(ConfigError, match="size_px 100: is neither side of an image of 160 x 96 px; leave it out"):
            refused()


def test_tile_of_another_size_is_resized_as_in_training(nano: PromptableSam, store: Store) -> None:
    index = next(record.index for record in store if len(record.object_ids) >= 2)
    small = crop(read_sample(store.tile(index), store.prompts(index, "multi_point")), 10, 6, 96, 96)
    assert len(small.segments)
    large = resize(small, 128, 128)
    predictor = MaskPredictor(nano, CPU)
    ours, theirs = (
        predictor.views(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))[0].features.embedding
        for sample in (small, large)
    )
    torch.testing.assert_close(ours, theirs)
    coords = scale_points(small.point_coords, (96, 96), (128, 128))
    features = predictor.views(np.ascontiguousarray(large.image.permute(1, 2, 0).numpy()))
    expected = predictor.predict(features, coords, small.point_labels, 128)
    found = predictor.predict(features, small.point_coords, small.point_labels, 96)
    torch.testing.assert_close(found.logits, expected.logits)
    # One point gives three candidates; the one with the best IoU estimate is taken.
    one = store.prompts(index, "centroid")
    answer = predictor.predict(features, *pad_prompts(list(one.values())), 128)
    with torch.no_grad():
        places = torch.zeros(len(one), dtype=torch.int64)
        all_three = nano.decode(features[0].features.of_objects(places), *pad_prompts(list(one.values())))
    torch.testing.assert_close(answer.ious, all_three.ious.max(1).values)


def test_inverse_of_each_view_restores_the_pixels(nano: PromptableSam, case: Any) -> None:
    image, _, _ = case
    pixels = torch.arange(16).reshape(1, 4, 4)
    turned = [view.orientation.tensor(pixels) for view in MaskPredictor(nano, CPU).views(image, all_eight=True)]
    assert len({tuple(found.flatten().tolist()) for found in turned}) == 8
    views = MaskPredictor(nano, CPU).views(image, all_eight=True)
    for view, found in zip(views, turned, strict=True):
        assert torch.equal(view.orientation.inverse.tensor(found), pixels)


@pytest.mark.parametrize(("turns", "mirrored", "with_mask"), [(1, False, False), (2, True, True)])
def test_mean_of_all_views_turns_with_the_image(
    nano: PromptableSam, case: Any, turns: int, mirrored: bool, with_mask: bool
) -> None:
    image, coords, labels = case
    predictor = MaskPredictor(nano, CPU)
    views = predictor.views(image, all_eight=True)
    view = views[Orientation(turns, mirrored).index]
    before = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)) if with_mask else None
    straight = predictor.predict(views, coords, labels, 128, before)
    turned_image = view.orientation.tensor(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    moved = Orientation(turns, mirrored).points(coords, labels, (128, 128))
    turned_before = None if before is None else view.orientation.tensor(before)
    other = predictor.predict(predictor.views(turned_image, all_eight=True), moved, labels, 128, turned_before)
    assert (view.orientation.tensor(straight.logits) - other.logits).abs().max() < 1e-4
    assert (straight.ious - other.ious).abs().max() < 1e-5


def test_objects_get_the_same_masks_together_as_alone(nano: PromptableSam, case: Any) -> None:
    image, coords, labels = case
    predictor = MaskPredictor(nano, CPU)
    views = predictor.views(image)
    together = predictor.predict(views, coords, labels, 128)
    for row in range(3):
        real = labels[row] != PointLabel.PADDING
        alone = predictor.predict(views, coords[row : row + 1, real], labels[row : row + 1, real], 128)
        assert (alone.logits[0] - together.logits[row]).abs().max() < 1e-4


def test_predicting_restores_the_mode_of_the_model(nano: PromptableSam, case: Any) -> None:
    image, coords, labels = case
    predictor = MaskPredictor(nano, CPU)
    expected = predictor.predict(predictor.views(image), coords, labels, 128).logits
    nano.train()
    try:
        assert torch.equal(predictor.predict(predictor.views(image), coords, labels, 128).logits, expected)
        assert nano.training
    finally:
        nano.eval()


def test_masks_are_true_where_the_logit_is_over_the_threshold() -> None:
    logits = torch.linspace(-4, 4, 16).reshape(1, 1, 16).expand(40, 16, 16)
    prediction = Prediction(logits, torch.ones(40))
    for threshold in (-1.0, 0.0, 2.0):
        masks = prediction.masks(16, threshold)
        np.testing.assert_array_equal(masks, logits.numpy() > threshold)


def _save(path: Path, model: PromptableSam, **own: object) -> Path:
    torch.save({"model": model.sam.state_dict(), **own}, path)
    return path


def test_our_checkpoints_keep_their_recorded_size_beside_an_official_one(nano: PromptableSam, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    ours = _save(tmp_path / "run" / "a.pt", nano, model_size="nano", image_size=128)
    official = _save(tmp_path / "a.pt", nano)
    found = load_predictors([ours, official], CPU, "nano", 256)
    assert {name: predictor.model.image_size for name, predictor in found.items()} == {
        "run/a": 128,
        f"{tmp_path.name}/a": 256,
    }


def test_checkpoint_of_another_network_is_refused(nano: PromptableSam, tmp_path: Path) -> None:
    ours = _save(tmp_path / "ours.pt", nano, model_size="nano", image_size=128)
    official = _save(tmp_path / "official.pt", nano)
    with pytest.raises(CheckpointError, match=r"official.pt: does not fit the model small.*--model nano"):
        load_predictors([official], CPU, "small", 128)
    with pytest.raises(ConfigError, match=r"--model small: .*nano"):
        load_predictors([ours], CPU, "small")
    with pytest.raises(ConfigError, match=r"--image-size 256: .*128"):
        load_predictors([ours], CPU, None, 256)
    assert load_predictors([ours], CPU, "nano", 128)["ours"].model.image_size == 128


TWO_CLICKS = torch.tensor([[[40.0, 60.0]], [[90.0, 30.0]]]), torch.ones(2, 1, dtype=torch.int32)
"""Coordinates and labels of one click for each of two objects."""


def _eight_views(nano: PromptableSam, store: Store) -> tuple[MaskPredictor, list[View]]:
    predictor = MaskPredictor(nano, CPU)
    return predictor, predictor.views(store[0].image, all_eight=True)


def _renumber_in_each_view(nano: PromptableSam, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the candidates of the second view other numbers than those of the first, and so on."""
    decode, calls = nano.decode, count()

    def renumbered(*arguments: Any) -> Any:
        candidates, by = decode(*arguments), next(calls) % 3
        return replace(candidates, logits=candidates.logits.roll(by, 1), ious=candidates.ious.roll(by, 1))

    monkeypatch.setattr(nano, "decode", renumbered)


def test_each_view_chooses_its_own_candidate(
    nano: PromptableSam, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, views = _eight_views(nano, store)
    coords, labels = TWO_CLICKS
    found = predictor.predict(views, coords, labels)
    side = nano.image_size
    logits, ious = [], []
    for view in views:
        scaled = scale_points(coords, (128, 128), (side, side))
        points = view.orientation.points(scaled, labels, (side, side))
        with torch.inference_mode():
            candidates = nano.eval().decode(view.features.of_objects(torch.zeros(2, dtype=torch.int64)), points, labels)
        assert candidates.ious.shape == (2, 3)
        best = candidates.ious.argmax(1)
        logits.append(view.orientation.inverse.tensor(candidates.logits)[[0, 1], best])
        ious.append(candidates.ious[[0, 1], best])
    torch.testing.assert_close(found.ious, torch.stack(ious).mean(0))
    torch.testing.assert_close(found.logits, torch.stack(logits).mean(0), atol=1e-4, rtol=1e-4)

    # What number a candidate has in a view changes nothing.
    _renumber_in_each_view(nano, monkeypatch)
    again = predictor.predict(views, coords, labels)
    assert torch.equal(again.logits, found.logits)
    assert torch.equal(again.ious, found.ious)


def test_candidates_of_the_straight_image_are_averaged_with_those_most_like_them(
    nano: PromptableSam, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, views = _eight_views(nano, store)
    coords, labels = TWO_CLICKS
    logits, ious = predictor.candidates(views, coords, labels, 128)
    alone = [predictor.candidates([view], coords, labels, 128) for view in views]
    wanted = alone[0][0] > 0
    for row in range(2):
        for number in range(3):
            picked: list[tuple[torch.Tensor, torch.Tensor]] = []
            for found, estimates in alone:
                masks = found[row] > 0
                overlap = (masks & wanted[row, number]).sum((1, 2)) + 1
                best = int((overlap / ((masks | wanted[row, number]).sum((1, 2)) + 1)).argmax())
                picked.append((found[row, best], estimates[row, best]))
            torch.testing.assert_close(logits[row, number], torch.stack([mask for mask, _ in picked]).mean(0))
            torch.testing.assert_close(ious[row, number], torch.stack([each for _, each in picked]).mean())

    # What number a candidate has in the other views changes nothing.
    _renumber_in_each_view(nano, monkeypatch)
    again = predictor.candidates(views, coords, labels, 128)
    torch.testing.assert_close(again, (logits, ious))
