from pathlib import Path

import numpy as np
import pytest
import zarr

from prep.write.chunk_file import ChunkFile
from prep.write.shards import ChunkRun, ShardTask, create_array, rows_per_shard, write_shard
from schemas.errors import StoreError
from schemas.layout import ArraySpec
from schemas.store.codecs import IMAGE_CODECS, array_codec
from schemas.store.shards import ABSENT, shard_index

IMAGES = ArraySpec("images", "uint8", "tile", (1024, 1024, 3), ("y", "x", "channel"))
LABELS = ArraySpec("labels", "uint16", "tile", (1024, 1024), ("y", "x"))
SEGMENTS = ArraySpec("segments", "uint8", "object", (1024, 128), ("y", "x_byte"))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    ("spec", "codec"),
    [*((IMAGES, name) for name in IMAGE_CODECS), (LABELS, "fast"), (SEGMENTS, "fast")],
    ids=[*(f"{name} images" for name in IMAGE_CODECS), "labels", "segments"],
)
def test_shard_is_byte_for_byte_what_zarr_writes(tmp_path: Path, spec: ArraySpec, codec, rows: int) -> None:
    if codec == "small":
        pytest.importorskip("imagecodecs", reason="the small extra is not installed")
    values = np.random.default_rng(rows).integers(0, 4, (rows, *spec.row_shape)).astype(spec.dtype)
    sharded = create_array(zarr.create_group(tmp_path / "theirs"), spec, rows, codec=codec, sharded=True)
    sharded[:] = values
    with ChunkFile(tmp_path / "chunks", array_codec(spec.path, codec)) as file:
        for row in values:
            file.append(row)
    # In two pieces, as from two ROIs.
    first = rows // 2
    pieces = (
        ChunkRun(tmp_path / "chunks", 0, tuple(file.sizes[:first])),
        ChunkRun(tmp_path / "chunks", sum(file.sizes[:first]), tuple(file.sizes[first:])),
    )
    written = write_shard(ShardTask(tmp_path, "joined", pieces, rows_per_shard(spec)))
    (theirs,) = [path for path in (tmp_path / "theirs" / spec.path / "c").rglob("*") if path.is_file()]
    assert (tmp_path / "joined").read_bytes() == theirs.read_bytes()
    assert written.size_bytes == theirs.stat().st_size


def test_absent_rows_are_marked_in_the_index() -> None:
    index = np.frombuffer(shard_index([3, 2], slots=4)[:-4], "<u8").reshape(4, 2)
    assert index[:2].tolist() == [[0, 3], [3, 2]]
    assert (index[2:] == ABSENT).all()


def test_shards_hold_about_64_mib() -> None:
    assert rows_per_shard(IMAGES) == 16
    assert rows_per_shard(SEGMENTS) == 512


def _task(folder: Path) -> ShardTask:
    (folder / "chunks").write_bytes(b"abcdef")
    (folder / "shards").mkdir()
    return ShardTask(folder / "shards", "labels/c/0/0/0", (ChunkRun(folder / "chunks", 0, (4, 2)),), 2)


def test_task_that_runs_again_does_not_change_the_shard_in_the_store(tmp_path: Path) -> None:
    task = _task(tmp_path)
    shard, kept = tmp_path / "shards" / task.key, tmp_path / "store"
    first = write_shard(task)
    # A hard link is one file with two names: if the shard were written in place, the file in the store would change.
    kept.hardlink_to(shard)
    before = kept.stat()
    (tmp_path / "shards" / f"{task.key}.sha256").unlink()
    assert write_shard(task) == first
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert shard.stat().st_ino != before.st_ino
    assert sorted(path.name for path in shard.parent.iterdir()) == ["0", "0.sha256"]


def test_prepared_chunks_that_were_cut_since_are_an_error(tmp_path: Path) -> None:
    task = _task(tmp_path)
    (tmp_path / "chunks").write_bytes(b"abc")
    with pytest.raises(StoreError, match="chunks: lacks its last 3 bytes; run the same command"):
        write_shard(task)
    assert not (tmp_path / "shards" / task.key).exists()


def test_shard_that_was_damaged_since_is_written_again(tmp_path: Path) -> None:
    task = _task(tmp_path)
    first = write_shard(task)
    shard = tmp_path / "shards" / task.key
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert write_shard(task) == first
    assert shard.read_bytes() == whole


def test_task_that_runs_after_the_build_creates_no_folder(tmp_path: Path) -> None:
    task = _task(tmp_path)
    (tmp_path / "shards").rmdir()
    with pytest.raises(FileNotFoundError):
        write_shard(task)
    assert [path.name for path in tmp_path.iterdir()] == ["chunks"]
