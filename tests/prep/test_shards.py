from pathlib import Path

import numpy as np
import pytest
import zarr

from prep.shards import ShardTask, create_array, join_shard, rows_per_shard, write_shard
from schemas.layout import ArraySpec

SPEC = ArraySpec("images", "uint8", "tile", (1024, 1024, 3), ("y", "x", "channel"))


@pytest.mark.parametrize("rows", [1, 5, 16])
def test_joined_shard_is_byte_for_byte_what_zarr_writes(tmp_path: Path, rows: int) -> None:
    values = np.random.default_rng(rows).integers(0, 4, (rows, *SPEC.row_shape), np.uint8)
    plain = create_array(zarr.create_group(tmp_path / "plain"), SPEC, rows)
    sharded = create_array(zarr.create_group(tmp_path / "sharded"), SPEC, rows, sharded=True)
    plain[:] = values
    sharded[:] = values
    chunks = tuple(tmp_path / "plain" / "images" / "c" / str(row) / "0" / "0" / "0" for row in range(rows))
    task = ShardTask(tmp_path, "joined", chunks, rows_per_shard(SPEC))
    written = write_shard(task)
    theirs = tmp_path / "sharded" / "images" / "c" / "0" / "0" / "0" / "0"
    assert (tmp_path / "joined").read_bytes() == theirs.read_bytes()
    assert written.size_bytes == theirs.stat().st_size


def test_absent_rows_are_marked_in_the_index() -> None:
    shard = join_shard([b"abc", b"de"], slots=4)
    index = np.frombuffer(shard[5:-4], "<u8").reshape(4, 2)
    assert shard[:5] == b"abcde"
    assert index[:2].tolist() == [[0, 3], [3, 2]]
    assert (index[2:] == np.iinfo(np.uint64).max).all()


def test_shards_hold_about_64_mib() -> None:
    assert rows_per_shard(SPEC) == 16
    assert rows_per_shard(ArraySpec("segments", "uint8", "object", (1024, 128), ("y", "x_byte"))) == 512
