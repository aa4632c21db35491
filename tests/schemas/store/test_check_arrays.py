"""A store that claims wrong sizes, codecs or names is refused before memory is allocated or a file is opened."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import pytest
import zarr

from prep.verify import verify_store
from schemas.errors import StoreError
from schemas.store.file_list import FileList
from schemas.store.shards import with_crc32c
from schemas.store.store import Store, open_store


@pytest.fixture(autouse=True)
def _lengths_are_made_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The author of a hostile store also records the lengths of its files, so that check is switched off."""
    monkeypatch.setattr(FileList, "check", lambda _files, _key: None)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def _edit(file: Path, edit: Callable[[Any], object]) -> None:
    metadata = json.loads(file.read_text())
    edit(metadata)
    file.write_text(json.dumps(metadata))


def _grid(metadata: dict[str, Any]) -> dict[str, Any]:
    return metadata["chunk_grid"]["configuration"]


def _index(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return metadata["codecs"][0]["configuration"]["index_codecs"]


@pytest.mark.parametrize(
    ("array", "edit", "message"),
    [
        ("images", lambda m: m.update(shape=[10**12, 128, 128, 3]), "has shape .1000000000000, 128, 128, 3., but the"),
        ("objects/class_id", lambda m: m.update(shape=[10**12]), "has shape .1000000000000,., but the manifest gives"),
        ("images", lambda m: _grid(m).update(chunk_shape=[2**40, 128, 128, 3]), "has chunks of|missing or damaged"),
        ("objects/class_id", lambda m: _grid(m).update(chunk_shape=[2**40]), "has chunks of .1099511627776,., which"),
        ("objects/class_id", lambda m: m.update(data_type="float64", fill_value=0.0), "has type float64, not int32"),
        (
            "objects/class_id",
            lambda m: m["codecs"].append({"name": "gzip", "configuration": {"level": 1}}),
            "GzipCodec",
        ),
        ("images", lambda m: _index(m)[0]["configuration"].update(endian="big"), "has an index that no build writes"),
        ("images", lambda m: _index(m).pop(), "has an index that no build writes"),
        ("checksums/key", lambda m: m.update(shape=[10**9]), "is not a column of checksums"),
    ],
)
def test_metadata_that_no_build_writes_is_refused(copy: Path, array: str, edit, message: str) -> None:
    _edit(copy / array / "zarr.json", edit)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match=message):
            open_store(copy).column(array)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tile_size_px", 2**31),
        ("positive_points", 10**9),
        ("complete.tiles", 10**12),
        ("sources.0.width_px", 10**9),
        ("sources.0.frame_id", "../../evil"),
        ("sources.0.frame_id", "/tmp/evil"),
        ("classes.0.color", [0, 0, 10**9]),
        ("classes.1.code", 1),
    ],
)
def test_manifest_beyond_its_bounds_is_refused(copy: Path, key: str, value: object) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        *parents, last = key.split(".")
        place: Any = metadata["attributes"]["bcss"]
        for parent in parents:
            place = place[int(parent) if isinstance(place, list) else parent]
        place[last] = value

    _edit(copy / "zarr.json", edit)
    with pytest.raises(StoreError, match=f"damaged manifest .{key.split('.')[0]}"):
        open_store(copy)


def test_deeply_nested_metadata_is_refused(copy: Path) -> None:
    (copy / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="is not a Zarr v3 group"):
        open_store(copy)


def _bomb(size_bytes: int) -> bytes:
    zstd: Any = numcodecs.zstd
    return bytes(zstd.Zstd(level=3, checksum=True).encode(bytes(size_bytes)))


def test_column_that_decodes_to_more_than_its_rows_is_refused(copy: Path) -> None:
    (copy / "objects" / "class_id" / "c" / "0").write_bytes(_bomb(1 << 28))
    with pytest.raises(StoreError, match="says that it decodes to 268435456 bytes"):
        open_store(copy).column("objects/class_id")


def test_column_of_names_that_claims_more_names_than_rows_is_refused(copy: Path) -> None:
    zstd: Any = numcodecs.zstd
    content = (2**32 - 1).to_bytes(4, "little") + bytes(8)
    (copy / "tiles" / "frame_id" / "c" / "0").write_bytes(bytes(zstd.Zstd(level=3, checksum=True).encode(content)))
    with pytest.raises(StoreError, match="says that it holds 4294967295"):
        open_store(copy).column("tiles/frame_id")


def _with_first_chunk(shard: Path, slots: int, chunk: bytes) -> None:
    """Append a chunk to a shard and point the first entry of its index to it."""
    data = shard.read_bytes()
    body, index = data[: -slots * 16 - 4], np.frombuffer(data[-slots * 16 - 4 : -4], "<u8").copy()
    index[:2] = len(body), len(chunk)
    shard.write_bytes(body + chunk + with_crc32c(index.tobytes()))


@pytest.mark.parametrize("array", ["images", "segments"])
def test_chunk_of_a_shard_that_decodes_to_more_than_its_row_is_refused(copy: Path, array: str) -> None:
    held = zarr.open_group(copy, mode="r")[array]
    assert isinstance(held, zarr.Array)
    assert held.shards is not None
    blosc: Any = numcodecs.blosc
    packed = with_crc32c(bytes(blosc.Blosc(cname="lz4").encode(bytes(1 << 28))))
    (shard,) = [path for path in (copy / array / "c").rglob("*") if path.is_file()]
    _with_first_chunk(shard, held.shards[0], packed if array == "images" else _bomb(1 << 28))
    with pytest.raises(StoreError, match=rf"{array} rows? .*holds 268435456 bytes"):
        _ = open_store(copy)[0]


def test_index_that_claims_a_long_chunk_is_refused(copy: Path) -> None:
    (shard,) = [path for path in (copy / "images" / "c").rglob("*") if path.is_file()]
    data = shard.read_bytes()
    held = zarr.open_group(copy, mode="r")["images"]
    assert isinstance(held, zarr.Array)
    assert held.shards is not None
    slots = held.shards[0]
    index = np.frombuffer(data[-slots * 16 - 4 : -4], "<u8").copy()
    index[1] = 1 << 50
    shard.write_bytes(data[: -slots * 16 - 4] + with_crc32c(index.tobytes()))
    with pytest.raises(StoreError, match="its index says that a chunk has 1125899906842624 bytes"):
        _ = open_store(copy)[0]


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("tiles/object_offsets", lambda v: v[::-1]),
        ("tiles/frame_id", lambda v: np.array(["../../evil"] * len(v), object)),
        ("tiles/split", lambda v: np.array(["holdout"] * len(v), object)),
        ("tiles/origin_xy", lambda v: v - 10_000),
        ("tiles/origin_xy", lambda v: v + 10_000),
        ("tiles/roi_size_xy", lambda v: v + 1),
        ("tiles/scale_xy", lambda v: v * np.nan),
        ("tiles/scale_xy", lambda v: v * 1e-5),
        ("objects/tile_index", lambda v: v + 10_000),
        ("objects/tile_index", lambda v: v[::-1]),
        ("objects/object_id", np.ones_like),
        ("objects/class_id", lambda v: v + 10_000),
        ("objects/area_px", np.zeros_like),
        ("objects/box_xyxy", lambda v: np.where(v == v.max(), 2**31 - 1, v)),
        ("objects/box_xyxy", lambda v: v[:, [2, 3, 0, 1]]),
        ("prompts/interior_coords", lambda v: v * np.nan),
        ("prompts/positive_coords", lambda v: v + 128),
        ("prompts/negative_labels", lambda v: v + 2),
        ("checksums/key", lambda v: np.array(["images/c/abc", *v[1:]], object)),
        ("checksums/key", lambda v: np.array(["", *v[1:]], object)),
        ("checksums/key", lambda v: np.array(["../x/zarr.json", *v[1:]], object)),
        ("checksums/size_bytes", lambda v: -v),
    ],
)
def test_column_values_out_of_range_are_refused(copy: Path, array: str, change) -> None:
    with zarr.config.set({"array.write_empty_chunks": True}):
        held = zarr.open_group(copy, mode="r+")[array]
    assert isinstance(held, zarr.Array)
    held[:] = change(np.asarray(held[:]))
    with pytest.raises(StoreError, match=rf"copy.zarr/{array}: holds values that no build writes"):
        open_store(copy).column(array)


def test_columns_together_are_bounded(copy: Path) -> None:
    def claim(metadata: dict[str, Any]) -> None:
        metadata["attributes"]["bcss"]["complete"]["objects"] = 1 << 20
        metadata["attributes"]["bcss"]["positive_points"] = 4096

    _edit(copy / "zarr.json", claim)
    _edit(copy / "prompts" / "positive_coords" / "zarr.json", lambda m: m.update(shape=[1 << 20, 4096, 2]))
    with pytest.raises(StoreError, match="positive_coords: would take 34359738368 bytes of memory"):
        open_store(copy).array("prompts/positive_coords")


@pytest.mark.parametrize("place", ["zarr.json", "images/zarr.json", "objects/class_id/c/0", "images/c/0/0/0/0"])
def test_pipe_in_place_of_a_file_is_refused(copy: Path, place: str) -> None:
    (copy / place).unlink()
    os.mkfifo(copy / place)
    with pytest.raises(StoreError, match="not a regular file"):
        _ = open_store(copy)[0]
    with pytest.raises(StoreError, match="not a regular file"):
        verify_store(open_store(copy))


def test_long_sparse_file_is_not_read(copy: Path) -> None:
    with (copy / "objects" / "class_id" / "c" / "0").open("r+b") as file:
        file.truncate(3 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="it has 3221225472 bytes"):
            open_store(copy).column("objects/class_id")
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
