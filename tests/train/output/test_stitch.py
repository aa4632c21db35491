"""Stitching the tiles of a ROI gives the mask that they were cut from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import StoreError
from schemas.record import Record
from schemas.store.store import Store
from tests.folders import bytes_of
from tests.train.output.conftest import BuildRois
from train.model.predictor import MaskPredictor, Prediction
from train.model.promptable import PromptableSam
from train.output import stitch
from train.output.class_images import ClassImages
from train.output.stitch import RoiStitcher, RoiWriter
from train.output.writers import WrittenModels, roi_scorer
from train.score.answers import score_tiles, tiles_with_objects
from train.score.protocol import ScoringProtocol
from train.score.tile_answer import Answer, Question


def _answer(record: Record, prediction: Prediction | None = None, masks: np.ndarray | None = None) -> Answer:
    found = prediction.masks(record.ignore.shape[0]) if prediction else masks
    assert found is not None
    return Answer("m", Question.from_record(record, "box", []), found, prediction)


def _with_one_object(record: Record) -> Record:
    """Replace the objects of a tile by one object of class 1 that fills the tile."""
    return replace(
        record,
        segments=np.ones((1, *record.ignore.shape), bool),
        object_ids=np.array([1], np.int32),
        class_ids=np.array([1], np.int32),
    )


def _truth(store: Store) -> Iterator[Answer]:
    """Make answers that equal the truth."""
    return (_answer(record, masks=record.segments) for record in store if len(record.object_ids))


def _writing(store: Store, out: Path) -> RoiStitcher:
    images = ClassImages.from_store(store)
    return RoiStitcher(images, RoiWriter(images, out))


def _stitched(store: Store, answers: Iterator[Answer], out: Path) -> dict[str, np.ndarray]:
    stitcher = _writing(store, out)
    for answer in answers:
        stitcher(answer)
    stitcher.close()
    return {path.stem: np.asarray(Image.open(path)) for path in out.rglob("*.png")}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride_px": 40},
        {"edge": "pad"},
        {"edge": "pad", "stride_px": 24},
        {"objects": "component", "min_area_px": 1, "stride_px": 48},
    ],
    ids=str,
)
def test_stitching_the_truth_gives_the_source_mask(
    rois: Path, build_rois: BuildRois, tmp_path: Path, settings: dict[str, Any]
) -> None:
    store = build_rois(**settings)
    stitched = _stitched(store, _truth(store), tmp_path / "out")
    wanted = [info.code for info in store.manifest.classes]
    assert len(wanted) > 2
    assert set(stitched) == {path.stem for path in (rois / "masks").iterdir()}
    for stem, codes in stitched.items():
        with (
            Image.open(rois / "masks" / f"{stem}.png") as mask,
            Image.open(tmp_path / "out" / "m" / "box" / f"{stem}.png") as written,
        ):
            assert written.mode == "P"
            own = mask.getpalette() or []
            assert own
            assert (written.getpalette() or [])[: len(own)] == own
            expected = np.asarray(mask)
        np.testing.assert_array_equal(codes, np.where(np.isin(expected, wanted), expected, 0))


@pytest.mark.parametrize("settings", [{"layout": "resize"}, {"mpp_um": 0.6, "size_px": 40}], ids=str)
def test_rescaled_tiles_come_back_to_their_place(
    rois: Path, build_rois: BuildRois, tmp_path: Path, settings: dict[str, Any]
) -> None:
    store = build_rois(**settings)
    wanted = [info.code for info in store.manifest.classes]
    for stem, codes in _stitched(store, _truth(store), tmp_path / "out").items():
        with Image.open(rois / "masks" / f"{stem}.png") as mask:
            expected = np.asarray(mask)
        assert codes.shape == expected.shape
        # Rescaling changes only pixels near outlines.
        assert np.mean(codes == np.where(np.isin(expected, wanted), expected, 0)) > 0.95


def test_rescaled_tiles_leave_no_gap(build_rois: BuildRois, tmp_path: Path) -> None:
    # Tiles begin at 0, 79.4 and 158.8 source pixels.
    store = build_rois(mpp_um=0.83, size_px=24, edge="pad")
    everything = (_answer(tile, masks=tile.segments) for tile in map(_with_one_object, store))
    for codes in _stitched(store, everything, tmp_path / "out").values():
        assert (codes == 1).all()


def test_overlapping_tiles_are_averaged(build_rois: BuildRois, tmp_path: Path) -> None:
    store = build_rois(stride_px=32)
    first, second = _with_one_object(store[0]), _with_one_object(store[1])
    assert (first.origin_xy, second.origin_xy) == ((0, 0), (32, 0))
    logits = torch.full((1, 16, 16), 2.0)
    answers = [_answer(first, Prediction(logits, torch.ones(1))), _answer(second, Prediction(-logits, torch.ones(1)))]
    codes = _stitched(store, iter(answers), tmp_path / "out")[first.frame_id]
    # Columns 32 to 63 are in both tiles, which disagree: the first tile weighs more up to the middle.
    assert np.all(codes[32, :48] == 1)
    assert np.all(codes[32, 48:] == 0)


def test_tiles_side_by_side_keep_their_masks(build_rois: BuildRois, nano: PromptableSam, tmp_path: Path) -> None:
    store = build_rois(edge="pad")
    protocol = ScoringProtocol("all", ("box",), baselines=(), thresholds={("model", "box"): 0.3})
    indices = tiles_with_objects(store, "all").tolist()
    scored = score_tiles(store, indices[:6], {"model": MaskPredictor(nano, torch.device("cpu"))}, protocol)
    answers = [entry.answer for entry in scored]
    stitcher = _writing(store, tmp_path / "out")
    for answer in answers:
        stitcher(answer)
    stitcher.close()
    for answer in answers:
        (path,) = (tmp_path / "out").rglob(f"{answer.question.frame_id}.png")
        x, y = answer.question.origin_xy
        codes = np.asarray(Image.open(path))[y : y + 64, x : x + 64]
        anywhere = np.any(answer.masks, axis=0)[: codes.shape[0], : codes.shape[1]]
        # Half precision may change a pixel whose logit is within a thousandth of the threshold.
        assert np.mean((codes > 0) == anywhere) > 0.99


def test_pixels_of_class_0_differ_from_pixels_without_a_mask(rois: Path, build_rois: BuildRois, tmp_path: Path) -> None:
    store = build_rois(classes=(0, 1), ignore=())
    stitcher = _writing(store, tmp_path / "out")
    for answer in _truth(store):
        stitcher(answer)
    stitcher.close()
    for roi in store.manifest.sources:
        with Image.open(tmp_path / "out" / "m" / "box" / f"{roi.frame_id}.png") as picture:
            written = np.asarray(picture)
        with Image.open(rois / "masks" / f"{roi.frame_id}.png") as mask:
            drawn = np.asarray(mask)
        np.testing.assert_array_equal(written, np.where(drawn <= 1, drawn, 255))


@pytest.mark.parametrize("settings", [{}, {"stride_px": 40}, {"edge": "pad"}, {"mpp_um": 0.6, "size_px": 40}], ids=str)
def test_knowing_the_tiles_changes_no_pixel(
    build_rois: BuildRois, nano: PromptableSam, tmp_path: Path, settings: dict[str, Any]
) -> None:
    store = build_rois(**settings)
    indices = tiles_with_objects(store, "all").tolist()
    predictors = {"m": MaskPredictor(nano, torch.device("cpu"))}
    scored = score_tiles(store, indices, predictors, ScoringProtocol("all", ("box",), baselines=()))
    knowing = roi_scorer(store, tmp_path / "knowing", WrittenModels(), None)
    plain = _writing(store, tmp_path / "plain" / "stitched")
    for entry in scored:
        plain(entry.answer)
        knowing(entry)
    plain.close()
    knowing.close()
    found = bytes_of(tmp_path / "plain" / "stitched")
    assert len(found) == 2
    assert bytes_of(tmp_path / "knowing" / "stitched") == found


def _random_answers(store: Store) -> list[Answer]:
    """Make answers with three parts of noise for each object."""
    torch.manual_seed(0)
    records = [record for record in store if len(record.object_ids)]
    logits = [
        torch.randn(len(record.object_ids), 3, 3).repeat_interleave(6, 1).repeat_interleave(6, 2) for record in records
    ]
    return [_answer(record, Prediction(own, torch.ones(len(own)))) for record, own in zip(records, logits, strict=True)]


@pytest.mark.parametrize("settings", [{}, {"stride_px": 40}, {"edge": "pad"}, {"mpp_um": 0.6, "size_px": 40}], ids=str)
def test_stitching_in_bands_changes_no_pixel(
    build_rois: BuildRois, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    store = build_rois(**settings)
    answers = _random_answers(store)
    monkeypatch.setattr(stitch, "BAND_ROWS", 1 << 20)
    whole = _stitched(store, iter(answers), tmp_path / "whole")
    monkeypatch.setattr(stitch, "BAND_ROWS", 64)
    _stitched(store, iter(answers), tmp_path / "bands")
    assert all(len(np.unique(codes)) > 2 for codes in whole.values())
    assert bytes_of(tmp_path / "bands") == bytes_of(tmp_path / "whole")


def test_tile_that_comes_after_those_below_it_is_refused(
    build_rois: BuildRois, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stitch, "BAND_ROWS", 64)
    store = build_rois(edge="pad")
    answers = _random_answers(store)
    of_one = [answer for answer in answers if answer.question.frame_id == answers[0].question.frame_id]
    with pytest.raises(StoreError, match=r"has a tile at row .* after tiles that lie below it"):
        _stitched(store, iter([of_one[0], of_one[-1], of_one[1]]), tmp_path / "out")
