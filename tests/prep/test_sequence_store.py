"""Sequences: a pixel value is one object in all frames, from folders or a table to the store and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.draw_tile import track_color
from prep.inspect import summarize_store
from prep.verify import verify_store
from prep.view import write_view
from schemas.errors import ConfigError, StoreError
from schemas.store.sequence import SequenceFrame
from schemas.store.store import Store, open_store
from tests.folders import bytes_of
from tests.prep.conftest import Build
from tests.sequences import HEIGHT, WIDTH, Masks, moving_mask, some_masks, write_sequences


def test_every_window_shows_the_pixels_and_objects_of_its_frame(tiled: Store) -> None:
    masks, seen = some_masks(), 0
    assert verify_store(tiled) == []
    assert tiled.manifest.schema_version == 2
    assert tiled.sequences == ("a", "b", "c", "cell", "d")
    for index, name in enumerate(tiled.sequences):
        frames = tiled.sequence(name)
        assert [frame.number for frame in frames] == sorted(masks[name])
        for frame in frames:
            ids = masks[name][frame.number]
            assert frame.labelled == (ids is not None)
            records = [tiled[tile] for tile in frame.tiles]
            assert [record.origin_xy for record in records] == [(0, 0), (40, 0), (0, 16), (40, 16)]
            for record in records:
                tile, (x, y) = tiled.tile(record.index), record.origin_xy
                assert (tile.sequence, tile.frame_number) == (index, frame.number)
                assert record.patient == name
                window = np.zeros((64, 64), np.uint8) if ids is None else ids[y : y + 64, x : x + 64]
                np.testing.assert_array_equal(record.labels, window)
                np.testing.assert_array_equal(record.ignore, window == 255 if ids is not None else True)
                assert list(tile.tracks.values()) == sorted({1, 7} & set(window.ravel().tolist()))
                for track, segment in zip(tile.tracks.values(), record.segments, strict=True):
                    np.testing.assert_array_equal(segment, window == track)
                seen += 1
    assert seen == len(tiled) == 64


@settings(max_examples=4)
@given(st.data())
def test_any_sequence_comes_back_from_the_store(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(8, 80)), data.draw(st.integers(8, 80))
    seed, step = data.draw(st.integers(0, 9)), data.draw(st.integers(1, 9))
    config = BuildConfig(
        size_px=32,
        sequences=True,
        stride_px=data.draw(st.integers(16, 32)),
        edge=data.draw(st.sampled_from(["shift", "pad"])),
    )
    generator = np.random.default_rng(seed)
    blocks = generator.choice([0, 1, 2, 9, 254, 255], (4, 10, 10))
    frames = [block.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8) for block in blocks]
    frames[0][0, 0] = 3
    masks: Masks = {"one": {step * n: None if n == 2 and seed % 2 else ids for n, ids in enumerate(frames)}}
    source = write_sequences(tmp_path_factory.mktemp("any"), masks)
    build_store(source, source / "s.zarr", config)
    store = open_store(source / "s.zarr")
    assert verify_store(store) == []
    for frame in store.sequence("one"):
        seen = np.zeros((height, width), np.bool_)
        for record in map(store.__getitem__, frame.tiles):
            x, y = record.origin_xy
            part = masks["one"][frame.number]
            ids = np.zeros((height, width), np.uint8) if part is None else part
            window = np.zeros((32, 32), np.uint8)
            inside = ids[y : y + 32, x : x + 32]
            window[: inside.shape[0], : inside.shape[1]] = inside
            seen[y : y + 32, x : x + 32] = True
            np.testing.assert_array_equal(record.labels, window)
            tracks = store.tile(record.index).tracks
            assert sorted(tracks.values()) == sorted(set(window.ravel().tolist()) - {0, 255})
            for track, segment in zip(tracks.values(), record.segments, strict=True):
                np.testing.assert_array_equal(segment, window == track)
        assert seen.all()


def test_resized_frames_are_one_tile_each(sequence_folder: Path, tmp_path: Path) -> None:
    build_store(sequence_folder, tmp_path / "s.zarr", BuildConfig(size_px=64, sequences=True, layout="resize"))
    store = open_store(tmp_path / "s.zarr")
    assert verify_store(store) == []
    assert store.sequence("cell") == tuple(SequenceFrame(n, (9 + n,), n != 1) for n in range(4))
    assert [info.name for info in store.manifest.classes] == ["object"]


def test_any_number_of_workers_writes_the_same_bytes(sequence_folder: Path, tiled: Store, tmp_path: Path) -> None:
    config = BuildConfig(size_px=64, sequences=True)
    build_store(sequence_folder, tmp_path / "s.zarr", config, BuildOptions(workers=2))
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(tiled.path)


def test_zarr_and_xarray_show_the_frames_and_tracks(tiled: Store) -> None:
    group = zarr.open_group(tiled.path, mode="r")
    attributes: dict[str, Any] = group.attrs.asdict()
    assert attributes["bcss"]["sequences"] == list(tiled.sequences)
    tiles = xarray.open_zarr(tiled.path, group="tiles", consolidated=False).load()
    objects = xarray.open_zarr(tiled.path, group="objects", consolidated=False).load()
    assert {tiles[name].dtype.name for name in ("sequence", "frame_number")} == {objects.track.dtype.name} == {"int32"}
    assert tiles.frame_number.dims == tiles.sequence.dims == ("tile",)
    assert objects.track.dims == ("object",)
    of_cell = tiles.frame_number.values[tiles.sequence.values == tiled.sequences.index("cell")]
    assert of_cell.tolist() == [number for number in range(4) for _ in range(4)]
    assert set(objects.track.values.tolist()) == {1, 7}


def test_manifest_names_frames_without_a_mask(tiled: Store) -> None:
    (unlabeled,) = [source for source in tiled.manifest.sources if source.mask is None]
    assert (unlabeled.image, unlabeled.sequence, unlabeled.frame_number) == ("images/cell/00001.jpg", "cell", 1)
    assert (unlabeled.objects, unlabeled.tiles, unlabeled.ignored_px) == (0, 4, 4 * 64 * 64)


def test_inspect_counts_frames_and_objects_of_sequences(tiled: Store) -> None:
    summary = summarize_store(tiled)
    assert (summary.sequences, summary.frames, summary.labelled_frames, summary.tracks) == (5, 16, 15, 10)
    assert summary.kept_out == ()
    assert "in 5 sequences" in repr(tiled)


def test_an_object_has_one_color_in_all_pictures_of_its_sequence(tiled: Store, tmp_path: Path) -> None:
    write_view(tiled, tmp_path / "view", layers=("outline",))
    colors = {1: track_color(1), 7: track_color(7)}
    assert colors[1] != colors[7]
    for frame in tiled.sequence("a"):
        for tile in map(tiled.tile, frame.tiles):
            with Image.open(tmp_path / "view" / "tiles" / f"{tile.index:06d}.png") as file:
                picture = np.asarray(file)
            for track, segment in zip(tile.tracks.values(), tile.segments(), strict=True):
                rows, columns = np.nonzero(segment)
                assert picture[rows[0], columns[0]].tolist() == list(colors[track])
    page = (tmp_path / "view" / "index.html").read_text()
    assert "cell_00001 at 0, 0" in page
    assert "no mask" in page


def test_sequence_without_an_object_is_left_out_and_frames_without_one_stay(tmp_path: Path, caplog) -> None:
    masks = some_masks()
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    masks["a"] = {0: empty, 1: empty}
    masks["b"][5] = empty
    write_sequences(tmp_path, masks)
    build_store(tmp_path, tmp_path / "s.zarr", BuildConfig(size_px=64, sequences=True, layout="resize"))
    store = open_store(tmp_path / "s.zarr")
    assert store.sequences == ("b", "c", "cell", "d")
    assert [(frame.number, frame.labelled) for frame in store.sequence("b")] == [(0, True), (5, True), (10, True)]
    assert not store.tile(1).classes
    assert store.tile(1).sequence == 0
    assert not store[1].ignore.any()
    assert "sequences without an object are left out: 1, such as a" in caplog.text
    assert summarize_store(store).kept_out == ("a",)
    assert verify_store(store) == []
    with pytest.raises(StoreError, match="has no sequence 'a'; choose one of b, c, cell, d"):
        store.sequence("a")


def test_table_gives_sequences_and_numbers(
    sequence_folder: Path, tiled: Store, tmp_path: Path, build: Build, capsys
) -> None:
    lines = ["image,mask,sequence,frame,patient,split"]
    for name in ("a", "cell"):
        for frame in reversed(tiled.sequence(name)):
            stem = f"{frame.number:05d}"
            mask = sequence_folder / "masks" / name / f"{stem}.png" if frame.labelled else ""
            number = "" if name == "a" else 100 + 2 * frame.number
            split = "train" if name == "cell" else "test"
            lines.append(f"{sequence_folder}/images/{name}/{stem}.jpg,{mask},stack {name},{number},Ann {name},{split}")
    table = tmp_path / "frames.csv"
    table.write_text("\n".join(lines))
    out = tmp_path / "s.zarr"
    assert build(table, out) == 0
    store = open_store(out)
    assert store.sequences == ("stack a", "stack cell")
    assert [frame.number for frame in store.sequence("stack a")] == [0, 5, 10]
    assert [(frame.number, frame.labelled) for frame in store.sequence("stack cell")] == [
        *((100, True), (102, False), (104, True), (106, True))
    ]
    assert set(store.column("tiles/patient")) == {"Ann a", "Ann cell"}
    assert verify_store(store) == []
    first = store.sequence("stack a")[0].tiles
    np.testing.assert_array_equal(store[first[0]].segments, tiled[0].segments)
    capsys.readouterr()
    # The same images under other numbers are another store.
    table.write_text("\n".join(lines).replace(",10", ",20"))
    assert build(table, out) == 1
    assert "was built from other frame numbers or sequences (stack cell_00000 differs)" in capsys.readouterr().err


def test_values_of_16_bits_and_255_as_an_object(tmp_path: Path) -> None:
    for name in "ab":
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
        for number in range(2):
            ids = moving_mask(number).astype(np.uint16)
            ids[ids == 7] = 700
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name / f"{number}.png")
            Image.fromarray(ids).save(tmp_path / "masks" / name / f"{number}.png")
    build_store(tmp_path, tmp_path / "s.zarr", BuildConfig(size_px=64, sequences=True, ignore=(), layout="resize"))
    store = open_store(tmp_path / "s.zarr")
    assert [sorted(store.tile(index).tracks) for index in range(2)] == [[1, 255, 700], [1, 255]]
    assert not store[0].ignore.any()
    assert verify_store(store) == []


def test_settings_of_sequences_are_checked() -> None:
    config = BuildConfig(sequences=True)
    assert (config.objects, config.classes, config.ignore, config.unpaired) == ("instance", (1,), (255,), None)
    assert BuildConfig.model_validate(config.model_dump(mode="json")) == config
    told = BuildConfig(sequences=True, unpaired="error")
    assert BuildConfig.model_validate(told.model_dump(mode="json")).unpaired == "error"
    # The fingerprints of stores of earlier versions stay as they are.
    assert not {"sequences", "unpaired"} & BuildConfig(unpaired="error").model_dump().keys()
    with pytest.raises(ConfigError, match="--objects component: cannot be used with sequences"):
        BuildConfig(sequences=True, objects="component")
    # The codes of BCSS that are ignored by default are not those of instances.
    assert BuildConfig(objects="instance").ignore == ()


def test_store_of_rois_has_no_sequences(store: Store) -> None:
    assert store.manifest.schema_version == 1
    assert store.sequences == ()
    assert (store.tile(0).sequence, store.tile(0).frame_number, store.tile(0).tracks) == (-1, -1, {})
    with pytest.raises(StoreError, match="has no sequence 'a'; build with --sequences"):
        store.sequence("a")
    with pytest.raises(StoreError, match="tiles/sequence: does not exist"):
        store.column("tiles/sequence")
