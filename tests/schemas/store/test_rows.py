"""Rows read straight from shards equal those that zarr reads, and damage is an error."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.storage import LoggingStore, MemoryStore

from schemas.errors import StoreError
from schemas.store import rows as module
from schemas.store.codecs import row_decoder, zstd_content_size
from schemas.store.jpegxl import JpegXlCodec, encode_jpegxl
from schemas.store.rows import RowReader
from schemas.store.shards import ABSENT, read_shard_index
from schemas.store.store import Store, open_store

ROWS, SLOTS, SIDE = 7, 4, 32

CODECS: dict[str, dict[str, Any]] = {
    "blosc": {"compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=1), Crc32cCodec()]},
    "zstd": {"compressors": [ZstdCodec(level=3, checksum=True)]},
    "plain": {"compressors": None},
    "plain and checked": {"compressors": [Crc32cCodec()]},
    "jpegxl": {"serializer": JpegXlCodec(), "compressors": [Crc32cCodec()]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "gzip": {"compressors": [GzipCodec()], "shards": (SLOTS, SIDE, SIDE, 3)},
    "no shards": {"shards": None},
    "two rows per chunk": {"chunks": (2, SIDE, SIDE, 3), "shards": (SLOTS, SIDE, SIDE, 3)},
}


def _array(path: Path, pixels: np.ndarray, **settings: Any) -> zarr.Array[Any]:
    defaults: dict[str, Any] = {"chunks": (1, *pixels.shape[1:]), "shards": (SLOTS, *pixels.shape[1:])}
    array = zarr.create_array(path, shape=pixels.shape, dtype=pixels.dtype, **(defaults | settings))
    array[:] = pixels
    return array


def _pixels(dtype: str = "uint8") -> np.ndarray:
    # A ramp with noise, so that codecs compress some and no two rows are alike.
    values = np.arange(ROWS * SIDE * SIDE * 3) // 40 + np.random.default_rng(0).integers(0, 9, ROWS * SIDE * SIDE * 3)
    return values.reshape(ROWS, SIDE, SIDE, 3).astype(dtype)


@pytest.mark.parametrize("name", CODECS)
def test_rows_are_those_of_zarr(tmp_path: Path, name: str) -> None:
    array = _array(tmp_path / "a.zarr", _pixels(), **CODECS[name])
    assert row_decoder(array) is not None
    reader = RowReader(array, "a.zarr/images")
    for rows in ([3], [0, 6, 1, 1], list(range(ROWS)), []):
        np.testing.assert_array_equal(reader.read(rows), np.asarray(array[:])[rows])


@pytest.mark.parametrize("name", OTHERS)
def test_arrays_made_otherwise_are_read_by_zarr(tmp_path: Path, name: str) -> None:
    array = _array(tmp_path / "a.zarr", _pixels(), **OTHERS[name])
    assert row_decoder(array) is None
    np.testing.assert_array_equal(RowReader(array, "a.zarr").read([5, 0]), _pixels()[[5, 0]])


def test_two_bytes_a_pixel_keep_their_order(tmp_path: Path) -> None:
    array = _array(tmp_path / "a.zarr", _pixels("uint16") * 300, compressors=[ZstdCodec(checksum=True)])
    found = RowReader(array, "a.zarr").read([2])
    assert found.max() > 255
    np.testing.assert_array_equal(found[0], array[2])


def test_a_whole_store_is_read_as_zarr_reads_it(store: Store) -> None:
    for name in ("images", "labels", "ignore", "segments"):
        array = store.array(name)
        assert row_decoder(array) is not None
        rows = list(range(array.shape[0]))
        np.testing.assert_array_equal(RowReader(array, name).read(rows), array[:])


@pytest.mark.parametrize(("at_once", "requests"), [(1 << 18, 1), (0, 4)])
def test_rows_that_lie_near_each_other_need_one_request(
    monkeypatch: pytest.MonkeyPatch, at_once: int, requests: int
) -> None:
    monkeypatch.setattr(module, "READ_AT_ONCE_BYTES", at_once)
    bucket = LoggingStore(MemoryStore(), log_level="ERROR")
    array = zarr.create_array(
        bucket, shape=(ROWS, 8, 8), dtype="uint8", chunks=(1, 8, 8), shards=(SLOTS, 8, 8), **CODECS["blosc"]
    )
    array[:] = pixels = _pixels()[:, :8, :8, 0]
    reader = RowReader(array, "segments")
    reader.read([0])
    before = bucket.counter["get"]
    np.testing.assert_array_equal(reader.read([3, 0, 2, 0]), pixels[[3, 0, 2, 0]])
    assert bucket.counter["get"] - before == requests


def test_index_of_each_shard_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def count(array: zarr.Array[Any], number: int) -> np.ndarray:
        asked.append((array.path, number))
        return read_shard_index(array, number)

    monkeypatch.setattr(module, "read_shard_index", count)
    opened = open_store(store.path)
    for index in (0, 1, 0):
        _ = opened[index]
    assert ("images", 0) in asked
    assert len(asked) == len(set(asked))


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the first chunk of a shard, and write a shard whose index and checksums are right."""
    data = path.read_bytes()
    index = np.frombuffer(data[-SLOTS * 16 - 4 : -4], "<u8").reshape(SLOTS, 2).copy()
    chunks = [data[o : o + n] if o != ABSENT else b"" for o, n in index.tolist()]
    chunks[0] = change(chunks[0])
    lengths = np.array([len(chunk) for chunk in chunks], "<u8")
    index[:, 0], index[:, 1] = np.cumsum(lengths) - lengths, lengths
    pairs = index.tobytes()
    path.write_bytes(b"".join(chunks) + pairs + google_crc32c.value(pairs).to_bytes(4, "little"))


def _with_crc(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


HALF = _pixels()[0, : SIDE // 2]
BLOSC = numcodecs.Blosc(cname="lz4", shuffle=2)
LIES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("zstd", lambda _: numcodecs.Zstd(checksum=True).encode(HALF), "holds 1536 bytes of pixels and should hold 3072"),
    ("zstd", lambda chunk: chunk[:4] + b"\xe0" + (1 << 50).to_bytes(8, "little"), "holds 1125899906842624 bytes"),
    ("zstd", lambda chunk: chunk[:4] + b"\x00" + chunk[5:], "does not state its size"),
    ("zstd", lambda _: b"", "not a Zstandard frame"),
    ("blosc", lambda _: _with_crc(BLOSC.encode(HALF)), "holds 1536 bytes of pixels and should hold 3072"),
    ("blosc", lambda chunk: _with_crc(chunk[:4] + b"\xff\xff\xff\x7f" + chunk[8:-4]), "holds 2147483647 bytes"),
    ("blosc", lambda chunk: _with_crc(chunk[:40]), "is cut short"),
    ("blosc", lambda chunk: chunk[:-1], "checksum does not match"),
    ("plain and checked", lambda _: _with_crc(b"abc"), "holds 3 bytes of pixels"),
    ("jpegxl", lambda _: _with_crc(b"abc"), "not a JPEG XL"),
    ("jpegxl", lambda _: _with_crc(encode_jpegxl(np.zeros((4096, 4096, 3), np.uint8))), "invalid out.shape"),
]


@pytest.mark.parametrize(("name", "change", "message"), LIES, ids=[message for _, _, message in LIES])
def test_chunk_with_a_wrong_stated_size_is_an_error_and_takes_no_memory(
    tmp_path: Path, name: str, change, message: str
) -> None:
    array = _array(tmp_path / "a.zarr", _pixels(), **CODECS[name])
    shard = tmp_path / "a.zarr" / "c/0/0/0/0"
    _rewrite(shard, change)
    reader = RowReader(array, "images")
    np.testing.assert_array_equal(reader.read([1])[0], _pixels()[1])
    tracemalloc.start()
    with pytest.raises(StoreError, match=rf"images row 0: cannot be decoded \(.*{message}"):
        reader.read([0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_shard_cut_short_and_a_damaged_index_are_errors(tmp_path: Path) -> None:
    array = _array(tmp_path / "a.zarr", _pixels(), **CODECS["zstd"])
    shard = tmp_path / "a.zarr" / "c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    reader = RowReader(array, "images")
    reader.read([0])
    shard.write_bytes(data[:100])
    with pytest.raises(StoreError, match=r"images row 3: cannot be decoded \(the shard is cut short"):
        reader.read([3])
    shard.unlink()
    with pytest.raises(StoreError, match=r"images row 0: cannot be read \(No such file"):
        reader.read([0])
    data[-8] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="index of shard 0 is damaged"):
        RowReader(array, "images").read([0])
    shard.write_bytes(b"")
    with pytest.raises(StoreError, match="images row 0: is missing"):
        RowReader(array, "images").read([0])


@given(st.integers(1, 200_000))
def test_the_size_that_a_frame_states_is_its_content(size: int) -> None:
    frame = numcodecs.Zstd(level=1, checksum=True).encode(b"a" * size)
    assert zstd_content_size(bytes(frame)) == size
