"""Objects that are drawn so that all classes come equally often, from a store with one class on 1 of 20 tiles."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store, open_store
from train.config import FitConfig
from train.data.balance import NO_OBJECT, ObjectTable, balanced_images
from train.data.dataset import SampleRequest, TileDataset
from train.data.loader import sample_options
from train.data.sampler import EpochSampler
from train.fit.trainer import fit
from train.runtime.run_log import StepRecord, read_steps

COMMON, OTHER, RARE = 1, 2, 3
FAST = {"model": "nano", "image_size": 128, "batch_size": 4, "workers": 0, "device": "cpu", "report": False}


@pytest.fixture(scope="module")
def rare_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """20 training tiles: two classes are on all of them, the third is on one."""
    source = tmp_path_factory.mktemp("rare")
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (source / name).mkdir()
    for number in range(20):
        labels = np.zeros((64, 64), np.uint8)
        labels[4:28, 4:60], labels[32:60, 4:28] = COMMON, OTHER
        if number == 7:
            labels[36:56, 36:56] = RARE
        Image.fromarray(labels).save(source / "masks" / f"roi{number:02}.png")
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(
            source / "images" / f"roi{number:02}.png"
        )
    path = tmp_path_factory.mktemp("store") / "rare.zarr"
    build_store(source, path, BuildConfig(size_px=64), splitter=lambda rois: {roi.frame_id: "train" for roi in rois})
    return open_store(path)


def _shares(store: Store, epochs: int, max_objects: int) -> dict[int, float]:
    """Return the share of each class among the objects of the samples of some epochs."""
    config = FitConfig.model_validate({**FAST, "max_objects": max_objects, "balance": "classes"})
    dataset = TileDataset(store.path, sample_options(config))
    tiles = np.arange(20)
    table = ObjectTable.of_tiles(store, tiles)
    sampler = EpochSampler(tiles, 4, 0, balanced=table, max_objects=max_objects)
    counts: Counter[int] = Counter()
    for sampler.epoch in range(epochs):
        for batch in sampler:
            for request in batch:
                counts.update(dataset[request].class_ids.tolist())
    return {code: count / counts.total() for code, count in counts.items()}


@pytest.mark.parametrize("max_objects", [1, 2, 3])
def test_class_on_one_of_20_tiles_comes_as_often_as_the_others(rare_store: Store, max_objects: int) -> None:
    shares = _shares(rare_store, 4, max_objects)
    assert shares.keys() == {COMMON, OTHER, RARE}
    for share in shares.values():
        assert share == pytest.approx(1 / 3, abs=0.1)


def test_shares_that_were_drawn_are_in_the_summary(rare_store: Store, tmp_path: Path) -> None:
    names = {info.code: info.name for info in rare_store.manifest.classes}
    for balance, low, high in (("classes", 0.2, 0.47), ("none", 0.0, 0.05)):
        config = FitConfig.model_validate({**FAST, "epochs": 1, "balance": balance})
        fit(rare_store, config, tmp_path / balance)
        drawn = json.loads((tmp_path / balance / "summary.json").read_text())["drawn"]
        assert low <= drawn[names[RARE]]["share"] <= high
        assert sum(entry["share"] for entry in drawn.values()) == pytest.approx(1)
        steps = read_steps(tmp_path / balance)
        assert drawn[names[RARE]]["objects"] == sum(step.by_class.get(str(RARE), 0) for step in steps)
        assert [sum(step.by_class.values()) for step in steps] == [step.objects for step in steps]
        assert len(steps) == 5


def test_stopped_run_goes_on_with_the_same_objects(rare_store: Store, tmp_path: Path) -> None:
    config = FitConfig.model_validate({**FAST, "epochs": 2, "max_steps": 7, "balance": "classes"})

    def stop(record: StepRecord, total: int) -> None:
        if record.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    fit(rare_store, config, tmp_path / "straight")
    assert fit(rare_store, config, tmp_path / "stopped", on_step=stop)["steps"] == 3
    fit(rare_store, config, tmp_path / "stopped", resume=True)
    straight, stopped = (read_steps(tmp_path / name) for name in ("straight", "stopped"))
    assert [(s.tiles, s.by_class, s.loss) for s in stopped] == [(s.tiles, s.by_class, s.loss) for s in straight]


def test_tile_that_comes_again_is_augmented_again(rare_store: Store) -> None:
    config = FitConfig.model_validate({**FAST, "prompt": "random", "balance": "classes"})
    dataset = TileDataset(rare_store.path, sample_options(config))
    ids = tuple(ObjectTable.of_tiles(rare_store, np.array([7])).object_ids.tolist())
    views = [dataset[SampleRequest(7, 0, object_ids=ids, repeat=repeat)].view for repeat in range(12)]
    assert len(set(views)) > 2
    again = dataset[SampleRequest(7, 0, object_ids=ids, repeat=5)]
    assert again.view == views[5]
    assert again.object_ids.tolist() == list(ids)
    first = dataset[SampleRequest(7, 0)]
    assert torch.equal(first.image, dataset[SampleRequest(7, 0, object_ids=ids)].image)


@st.composite
def tables(draw: st.DrawFn) -> ObjectTable:
    """Draw the objects of some tiles; an object's id is unique in its tile."""
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    tiles = np.repeat(np.arange(len(counts)) * 3, counts)
    ids = np.concatenate([np.arange(1, count + 1) for count in counts])
    codes = draw(st.lists(st.integers(1, 4), min_size=len(ids), max_size=len(ids)))
    return ObjectTable(tiles, ids, np.array(codes))


@given(tables(), st.integers(1, 4), st.integers(0, 1000))
def test_images_hold_different_objects_of_their_tile(table: ObjectTable, max_objects: int, seed: int) -> None:
    images = len(np.unique(table.tiles))
    order = balanced_images(table, images, max_objects, np.random.default_rng(seed))
    again = balanced_images(table, images, max_objects, np.random.default_rng(seed))
    assert order.object_ids is not None
    assert again.object_ids is not None
    assert order.object_ids.tolist() == again.object_ids.tolist()
    assert len(order.tiles) == images
    known = set(zip(table.tiles.tolist(), table.object_ids.tolist(), strict=True))
    before: Counter[int] = Counter()
    for tile, repeat, ids in zip(order.tiles.tolist(), order.repeats.tolist(), order.object_ids.tolist(), strict=True):
        own = [number for number in ids if number != NO_OBJECT]
        assert own
        assert len(set(own)) == len(own)
        assert {(tile, number) for number in own} <= known
        assert repeat == before[tile]
        before[tile] += 1


@given(tables(), st.integers(1, 4), st.integers(0, 100))
def test_processes_and_a_resumed_run_share_the_order(table: ObjectTable, max_objects: int, epoch: int) -> None:
    tiles = np.unique(table.tiles)
    alone, *ranks = (
        EpochSampler(tiles, 4 // size, 5, rank, size, balanced=table, max_objects=max_objects)
        for size, rank in ((1, 0), (2, 0), (2, 1))
    )
    for sampler in (alone, *ranks):
        sampler.epoch = epoch
    whole = list(alone)
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert [*first, *(request for request in second if not request.empty)] == [*batch[::2], *batch[1::2]]
    assert [[request.tile_index for request in batch] for batch in whole] == [
        alone.tiles_of(number, 1) for number in range(len(alone))
    ]
    later = EpochSampler(tiles, 4, 5, balanced=table, max_objects=max_objects)
    later.epoch, later.first_batch = epoch, len(whole) // 2
    assert list(later) == whole[len(whole) // 2 :]
