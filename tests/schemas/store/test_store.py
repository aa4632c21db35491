import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from schemas.errors import StoreError
from schemas.prompt_kinds import PROMPT_SOURCES, PromptKind
from schemas.store.store import Store, open_store


def test_record_has_the_documented_shapes_and_types(store: Store) -> None:
    record = store[0]
    count, size = len(record.object_ids), 128
    assert record.image.shape == (size, size, 3)
    assert record.image.dtype == np.uint8
    assert record.labels.shape == (size, size)
    assert record.ignore.shape == (size, size)
    assert record.ignore.dtype == bool
    assert record.segments.shape == (count, size, size)
    assert record.segments.dtype == bool
    assert record.class_ids.shape == (count,)
    assert record.boxes_xyxy.shape == (count, 4)
    assert record.origin_xy == (0, 0)
    assert record.scale_xy == (1.0, 1.0)
    assert record.patient == "TCGA-A1-Z000"
    assert record.institution == "A1"


def test_segments_are_the_labels_class_by_class(store: Store) -> None:
    for record in store:
        for object_id, segment in zip(record.object_ids, record.segments, strict=True):
            np.testing.assert_array_equal(segment, record.labels == object_id)
        np.testing.assert_array_equal(record.ignore, np.isin(record.labels, [0, 7, 15]))


def test_tile_gives_what_the_record_holds(store: Store) -> None:
    tile, record = store.tile(-2), store[-2]
    assert tile.index == record.index == len(store) - 2
    for name in ("image", "labels", "ignore"):
        np.testing.assert_array_equal(getattr(tile, name), getattr(record, name))
    np.testing.assert_array_equal(tile.segments(), record.segments)
    assert list(tile.classes.items()) == list(zip(record.object_ids.tolist(), record.class_ids.tolist(), strict=True))


def test_tile_reads_no_more_than_is_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read = open_store(store.path), []
    rows = opened.rows
    monkeypatch.setattr(opened, "rows", lambda path, wanted: read.append(path) or rows(path, wanted))
    tile = opened.tile(1)
    tile.prompts("box", negatives=True)
    assert read == []
    _ = tile.ignore, tile.image, tile.image
    assert read == ["ignore", "images"]


@pytest.mark.parametrize("kind", PROMPT_SOURCES)
def test_prompts_lie_where_their_labels_say(store: Store, kind) -> None:
    for record in store:
        for object_id, prompt in store.prompts(record.index, kind, negatives=True).items():
            segment = record.segments[record.object_ids.tolist().index(object_id)]
            for (x, y), label in zip(prompt["point_coords"].astype(int), prompt["point_labels"], strict=True):
                if label == 1:
                    assert segment[y, x]
                if label == 0:
                    assert not segment[y, x]
                    assert not record.ignore[y, x]
            if kind == "box":
                ys, xs = np.nonzero(segment)
                box = [[xs.min(), ys.min()], [xs.max(), ys.max()]]
                assert prompt["point_coords"][:2].tolist() == box
                assert prompt["point_labels"][:2].tolist() == [2, 3]


def test_unknown_prompt_kind_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="no prompt kind 'scribble'; choose one of centroid"):
        store.prompts(0, "scribble")  # pyright: ignore[reportArgumentType]


def test_indices_count_from_both_ends(store: Store) -> None:
    assert store[-1].index == len(store) - 1
    with pytest.raises(IndexError, match=f"{len(store)} tiles"):
        store[len(store)]


def test_pickled_store_is_its_path(store: Store) -> None:
    store.column("tiles/split")
    data = pickle.dumps(store)
    assert len(data) < 300
    np.testing.assert_array_equal(pickle.loads(data)[2].image, store[2].image)


def test_repr_names_tiles_patients_and_classes(store: Store) -> None:
    text = repr(store)
    assert f"{len(store)} tiles of 128 px from 6 patients" in text
    assert "tumor" in text


def test_plain_zarr_and_xarray_read_the_same(store: Store) -> None:
    group = zarr.open_group(store.path, mode="r")
    images = group["images"]
    assert isinstance(images, zarr.Array)
    np.testing.assert_array_equal(images[0], store[0].image)
    assert images.metadata.to_dict()["dimension_names"] == ("tile", "y", "x", "channel")
    with xarray.open_zarr(store.path, consolidated=False) as data:
        np.testing.assert_array_equal(data.images[0].values, store[0].image)
        assert data.images.dims == ("tile", "y", "x", "channel")
        width = data.ignore.attrs["width"]
    assert width == 128
    with xarray.open_zarr(store.path, group="objects", consolidated=False) as objects:
        np.testing.assert_array_equal(objects.class_id.values, store.column("objects/class_id"))
    with xarray.open_zarr(store.path, group="tiles", consolidated=False) as tiles:
        assert tiles.frame_id.values[0] == store[0].frame_id


def _edit_attributes(path: Path, edit) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    edit(metadata["attributes"]["bcss"])
    (path / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda manifest: manifest.pop("complete"), "not a finished store"),
        (
            lambda manifest: manifest.update(schema_version=3),
            "schema version 3, but this program reads versions 1 and 2",
        ),
        (lambda manifest: manifest.update(schema_version=2), "damaged manifest .*version 2 with 0 sequences"),
        (lambda manifest: manifest.update(tile_size_px=-8), "damaged manifest .tile_size_px"),
    ],
)
def test_unfinished_damaged_and_other_version_stores_are_refused(store: Store, tmp_path: Path, edit, message) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    _edit_attributes(copy, edit)
    with pytest.raises(StoreError, match=message):
        open_store(copy)


def test_absent_store_and_foreign_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store is there"):
        open_store(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(StoreError, match="not a finished store"):
        open_store(tmp_path / "other.zarr")


@pytest.mark.parametrize("name", ["images", "segments", "ignore"])
def test_flipped_byte_is_an_error_and_never_other_pixels(store: Store, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    (shard,) = [path for path in (copy / name / "c" / "0").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=f"{name} row"):
        open_store(copy)[0]


@pytest.mark.parametrize("name", ["images", "labels", "ignore", "segments"])
def test_missing_shard_is_an_error_and_never_zeros(store: Store, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    (shard,) = [path for path in (copy / name / "c").rglob("*") if path.is_file()]
    shard.unlink()
    opened = pickle.loads(pickle.dumps(open_store(copy)))
    with pytest.raises(StoreError, match=rf"copy.zarr/{name} row 0: is missing; `bcss-prep verify`"):
        _ = opened[0]


def test_missing_chunk_of_a_shard_is_an_error_for_its_row_alone(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    # Without `write_empty_chunks` zarr does not write a chunk of zeros, and marks it as absent in the shard's index.
    with zarr.config.set({"array.write_empty_chunks": False}):
        images = zarr.open_group(copy, mode="r+")["images"]
    assert isinstance(images, zarr.Array)
    images[2] = 0
    # The shard is shorter without the chunk, so the whole shard is refused.
    with pytest.raises(StoreError, match="bytes, but the build wrote"):
        _ = open_store(copy).tile(1).image
    opened = Store(copy, check_files=False)
    np.testing.assert_array_equal(opened[1].image, store[1].image)
    with pytest.raises(StoreError, match="images row 2: is missing"):
        _ = opened[2]


def test_missing_chunk_of_a_column_is_an_error(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    (copy / "objects" / "class_id" / "c" / "0").unlink()
    with pytest.raises(StoreError, match="objects/class_id row 0: is missing"):
        open_store(copy).column("objects/class_id")


def test_some_objects_are_read_alone(store: Store) -> None:
    record = next(record for record in store if len(record.object_ids) >= 3)
    wanted = set(record.object_ids[[2, 0]].tolist())
    tile = store.tile(record.index)
    np.testing.assert_array_equal(tile.segments(wanted), record.segments[[0, 2]])
    assert tile.segments([]).shape == (0, 128, 128)
    assert list(store.prompts(record.index, object_ids=wanted)) == record.object_ids[[0, 2]].tolist()


def test_prompt_reads_only_the_columns_of_its_kind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[PromptKind, bool, list[str]]] = [
        ("box", False, []),
        ("centroid", False, ["interior"]),
        ("multi_point", True, ["negative", "positive"]),
    ]
    for kind, negatives, names in cases:
        opened, read = open_store(store.path), list[str]()
        # The length of a file is checked before the file is read.
        monkeypatch.setattr(opened.files, "check", read.append)
        opened.prompts(0, kind, negatives=negatives)
        columns = {path.partition("/c/")[0] for path in read if path.startswith("prompts/")}
        assert columns == {f"prompts/{name}_{part}" for name in names for part in ("coords", "labels")}


def test_record_is_a_copy_and_a_column_is_read_only(store: Store) -> None:
    before = store.prompts(0, "box")
    record = store[0]
    record.boxes_xyxy[:] = 0
    record.class_ids[:] = 99
    again = store.prompts(0, "box")
    assert all((before[i]["point_coords"] == again[i]["point_coords"]).all() for i in before)
    assert not (store[0].class_ids == 99).any()
    with pytest.raises(ValueError, match="read-only"):
        store.column("objects/box_xyxy")[:] = 0


def test_record_is_shown_in_a_line(store: Store) -> None:
    record = store[3]
    x, y = record.origin_xy
    shown = f"Record(3: {record.frame_id} at {x}, {y}; {record.split}, 128 px, {len(record.object_ids)} objects)"
    assert repr(record) == shown


def test_unknown_array_is_not_reported_as_damage(store: Store) -> None:
    with pytest.raises(StoreError, match=r"objects/color: does not exist"):
        store.column("objects/color")
