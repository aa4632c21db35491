import shutil
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zarr

from schemas.errors import StoreError
from schemas.store.column_parts import ColumnParts
from schemas.store.store import Store


def _columns(store: Store) -> list[str]:
    return [
        f"{group}/{name}"
        for group in ("tiles", "objects", "prompts")
        for name in cast("Any", store.group[group]).array_keys()
    ]


@pytest.fixture
def in_parts(store: Store, tmp_path: Path) -> Store:
    """The store with columns in chunks of three rows."""
    path = tmp_path / "parts.zarr"
    shutil.copytree(store.path, path)
    group = zarr.open_group(path, mode="r+")
    for name in _columns(store):
        array, values = cast("Any", store.array(name)), store.column(name)
        dtype = str if array.metadata.to_dict()["data_type"] == "string" else array.dtype
        group.create_array(
            name,
            shape=array.shape,
            dtype=dtype,
            chunks=(3, *array.shape[1:]),
            dimension_names=array.metadata.dimension_names,
            config={"write_empty_chunks": True},
            overwrite=True,
        )[:] = values
    return Store(path, check_files=False)


def test_parts_equal_the_whole_column(store: Store, in_parts: Store) -> None:
    assert len(_columns(store)) > 15
    for name in _columns(store):
        whole = store.column(name)
        for start, stop in ((0, 1), (2, 4), (1, 9), (len(whole) - 2, len(whole)), (0, len(whole))):
            np.testing.assert_array_equal(in_parts.column_rows(name, start, stop), whole[start:stop])


def test_tiles_are_the_same_and_read_only_their_own_parts(
    store: Store, in_parts: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    in_parts.check_files = True
    # The length of a file is checked before the file is read.
    monkeypatch.setattr(in_parts.files, "check", read.append)
    for index in (1, len(store) - 1):
        read.clear()
        ours, theirs = in_parts.tile(index), store.tile(index)
        assert ours.classes == theirs.classes
        for object_id, prompt in theirs.prompts("multi_point", negatives=True).items():
            found = ours.prompts("multi_point", negatives=True)[object_id]
            np.testing.assert_array_equal(found["point_coords"], prompt["point_coords"])
        ours, theirs = ours.record(), theirs.record()
        assert (ours.frame_id, ours.origin_xy, ours.scale_xy) == (theirs.frame_id, theirs.origin_xy, theirs.scale_xy)
        np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)
        rows = store.tile(index).object_rows
        parts = range(rows.start // 3, (rows.stop - 1) // 3 + 1)
        for key in ("objects/class_id/c/{}", "prompts/positive_coords/c/{}/0/0"):
            name = key.partition("/c/")[0]
            assert {path for path in read if path.startswith(name)} == {key.format(number) for number in parts}


def test_a_damaged_value_is_refused_in_its_part(in_parts: Store) -> None:
    array = zarr.open_array(Path(in_parts.path) / "tiles/scale_xy", mode="r+")
    array[len(in_parts) - 1] = 0
    assert in_parts.column_rows("tiles/scale_xy", 0, 1).tolist() == [[1, 1]]
    with pytest.raises(StoreError, match="tiles/scale_xy: holds values that no build writes"):
        in_parts.column_rows("tiles/scale_xy", len(in_parts) - 1, len(in_parts))


def test_a_missing_part_is_refused(in_parts: Store) -> None:
    (Path(in_parts.path) / "tiles/patient/c/1").unlink()
    assert in_parts.column_rows("tiles/patient", 0, 3).shape == (3,)
    with pytest.raises(StoreError, match="tiles/patient row 3: is missing"):
        in_parts.column_rows("tiles/patient", 2, 4)


def test_memory_is_bounded_and_the_last_used_part_stays() -> None:
    read: list[int] = []

    def read_part(_path: str, number: int) -> np.ndarray:
        read.append(number)
        return np.full(1 << 17, number)

    parts = ColumnParts(read_part, kept_bytes=3 << 20)
    tracemalloc.start()
    for number in range(64):
        assert parts.rows("x", number << 17, (number << 17) + 1, 1 << 17).tolist() == [number]
        parts.rows("x", 0, 1, 1 << 17)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
    assert read == list(range(64))


def test_threads_read_each_part_once() -> None:
    read: list[int] = []

    def read_part(_path: str, number: int) -> np.ndarray:
        read.append(number)
        time.sleep(0.01)
        return np.full(4, number)

    parts = ColumnParts(read_part)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: parts.rows("x", 4 * number, 4 * number + 4, 4).tolist(), [0, 1] * 8))
    assert found == [[0] * 4, [1] * 4] * 8
    assert sorted(read) == [0, 1]
