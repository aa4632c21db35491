"""No pixel and no object of overlapping tiles is scored twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store, open_store
from tests.conftest import WriteRoi
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.score.answers import score_tiles, tiles_with_objects
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.scored_once import ScoredOnce
from train.score.tables import gather_scores


def _store(source: Path, out: Path, **settings: object) -> Store:
    build_store(source, out, BuildConfig.model_validate({"size_px": 128, "stride_px": 80, **settings}))
    return open_store(out)


@pytest.fixture(scope="module")
def by_label(sample_source: Path, module_path: Path) -> Store:
    return _store(sample_source, module_path / "label.zarr")


@pytest.fixture(scope="module")
def by_component(sample_source: Path, module_path: Path) -> Store:
    return _store(sample_source, module_path / "component.zarr", objects="component")


def _square(store: Store, index: int) -> tuple[slice, slice]:
    x, y = store.column("tiles/origin_xy")[index].tolist()
    side = store.manifest.tile_size_px
    return slice(y, y + side), slice(x, x + side)


def _rois(store: Store, tiles: list[int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Yield the tiles of each ROI, and the ROI's height and width."""
    frames = store.column("tiles/frame_id")
    for frame in np.unique(frames[tiles]):
        own = [index for index in tiles if frames[index] == frame]
        width, height = store.column("tiles/roi_size_xy")[own[0]].tolist()
        yield own, (height, width)


@pytest.mark.parametrize("left_out", [None, 3], ids=["all tiles", "every third is missing"])
def test_every_pixel_of_a_roi_is_owned_once(by_label: Store, left_out: int | None) -> None:
    tiles = [index for index in range(len(by_label)) if left_out is None or index % left_out]
    once = ScoredOnce(by_label, tiles)
    for own, shape in _rois(by_label, tiles):
        count, seen = np.zeros(shape, int), np.zeros(shape, bool)
        for index in own:
            place = _square(by_label, index)
            count[place] += once.owned(by_label[index])
            seen[place] = True
        np.testing.assert_array_equal(count, seen)


def test_true_pixels_of_a_class_count_once(by_label: Store) -> None:
    protocol = ScoringProtocol("all", ("box",), baselines=("image",))
    tiles = tiles_with_objects(by_label, "all").tolist()
    table = gather_scores(score_tiles(by_label, tiles, {}, protocol))["baseline:image"]["box"]
    expected = 0
    for own, shape in _rois(by_label, tiles):
        truth = np.zeros(shape, bool)
        for index in own:
            record = by_label[index]
            truth[_square(by_label, index)] |= (record.segments & ~record.ignore).any(0)
        expected += int(truth.sum())
    assert table.area_px.sum() == expected
    assert (table.area_px > 0).all()


def test_pixels_of_a_component_count_at_most_once(by_component: Store) -> None:
    once = ScoredOnce(by_component, range(len(by_component)))
    for own, shape in _rois(by_component, list(range(len(by_component)))):
        count = np.zeros(shape, int)
        seen: set[int] = set()
        scored: set[int] = set()
        for index in own:
            record = by_component[index]
            assert once.counted(record) is record
            kept = once.kept(record)
            count[_square(by_component, index)] += record.segments[kept].sum(0)
            seen |= set(record.roi_components.tolist())
            scored |= set(record.roi_components[kept].tolist())
        assert count.max() == 1
        assert scored == seen


def test_a_whole_component_is_scored_where_it_is_whole(by_component: Store) -> None:
    once = ScoredOnce(by_component, range(len(by_component)))
    column = by_component.column
    kept = np.concatenate([once.kept(by_component[index]) for index in range(len(by_component))])
    whole = ~column("objects/touches_edge")
    frames = column("tiles/frame_id")[column("objects/tile_index")]
    names = [f"{frame} {number}" for frame, number in zip(frames, column("objects/roi_component"), strict=True)]
    complete = {name for name, is_whole in zip(names, whole, strict=True) if is_whole}
    assert complete
    for name in complete:
        rows = [row for row, own in enumerate(names) if own == name and kept[row]]
        assert len(rows) == 1
        assert whole[rows[0]]


def test_pieces_of_one_tile_are_all_scored_even_if_their_boxes_overlap(tmp_path: Path, write_roi: WriteRoi) -> None:
    # A U that stands on the border of two tiles: the upper one shows its arms, one of them bent around the other.
    mask = np.zeros((256, 128), np.uint8)
    mask[40:140, 20:30] = mask[40:50, 20:100] = mask[70:140, 60:70] = mask[130:140, 20:70] = 1
    source = write_roi("TCGA-A1-0001-01Z-00-DX1", mask)
    store = _store(source, tmp_path / "u.zarr", objects="component", stride_px=128, min_area_px=1)
    once = ScoredOnce(store, range(len(store)))
    kept = [once.kept(store[index]) for index in range(len(store))]
    assert [len(each) for each in kept] == [2, 1]
    assert all(each.all() for each in kept)


def test_tiles_that_do_not_overlap_are_scored_as_they_are(store: Store) -> None:
    record = store[0]
    alone = ScoredOnce(store, [0])
    assert alone.owned(record).all()
    np.testing.assert_array_equal(alone.counted(record).ignore, record.ignore)
    hidden = replace(record, ignore=np.ones_like(record.ignore))
    assert not alone.kept(hidden).any()


def test_an_estimate_is_compared_with_the_whole_mask(by_label: Store, nano: PromptableSam) -> None:
    protocol = ScoringProtocol("val", ("box",), baselines=("box",))
    tiles = tiles_with_objects(by_label, "val").tolist()
    answers = list(score_tiles(by_label, tiles, {"m": MaskPredictor(nano, torch.device("cpu"))}, protocol))
    for scored in answers:
        record, table = scored.record, scored.scores
        if scored.answer.model == "m":
            rows = np.isin(record.object_ids, table.object_id)
            whole = score_masks(scored.answer.masks, record.segments, record.ignore).iou[rows]
            np.testing.assert_array_equal(table.whole_iou, whole)
    table = gather_scores(iter(answers))["m"]["box"]
    assert (table.whole_iou != table.iou).any()
    perfect = replace(table, iou_estimate=table.whole_iou).summary({1: "x"})["overall"]["iou_estimate"]
    assert (perfect["absolute_error"], perfect["bias"]) == (0, 0)
