"""Test stores whose metadata, manifest or chunks are made to break the code that reads them."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.inspect import summarize_store
from prep.verify import verify_store
from prep.view import write_view
from schemas.store.file_list import FileList
from schemas.store.shards import with_crc32c
from schemas.store.store import Store, open_store
from tests.faults.forms import forms
from tests.faults.guard import Guard, bounded_memory
from tests.faults.mutations import documents, mutated
from tests.sequences import write_sequences


def small_store(folder: Path) -> Path:
    """Build a store of three tiles of 256 px; with smaller tiles, a shard's index would be longer than its pixels."""
    source = folder / "source"
    for stem in ("TCGA-A1-0000", "TCGA-OL-0001"):
        labels = np.ones((256, 512 if stem.endswith("0") else 256), np.uint8)
        labels[:, 100:] = 2
        for name, picture in (("images", np.stack([labels * 40] * 3, -1)), ("masks", labels)):
            (source / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(source / name / f"{stem}.png")
    config = BuildConfig(size_px=256, positive_points=2, negative_points=2)
    build_store(source, folder / "s.zarr", config)
    return folder / "s.zarr"


def small_sequences(folder: Path) -> Path:
    """Build a store of two sequences of two frames, in two windows; one frame has no mask."""
    ids = np.zeros((256, 512), np.uint8)
    ids[20:90, 30:400], ids[100:160, :60] = 1, 9
    source = write_sequences(folder / "source", {"a": {0: ids, 1: None}, "b": {5: ids[::-1], 7: ids}})
    config = BuildConfig(size_px=256, positive_points=2, negative_points=2, sequences=True)
    build_store(source, folder / "s.zarr", config)
    return folder / "s.zarr"


@pytest.fixture(params=[small_store, small_sequences], ids=["rois", "sequences"])
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return request.param(tmp_path)


@pytest.fixture(autouse=True)
def _lengths_are_made_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check of file lengths, because the list in a hostile store would fit its files."""
    monkeypatch.setattr(FileList, "check", lambda _files, _key: None)


def use(store: Store) -> None:
    """Do everything that a reader does: read tiles, prompts and columns, and use values that name files or sizes."""
    repr(store)
    for name in store.sequences[:4]:
        assert "/" not in name
        for frame in store.sequence(name):
            assert all(store.tile(index).frame_number == frame.number for index in frame.tiles)
    for index in range(min(len(store), 4)):
        record = store[index]
        store.prompts(index, "multi_point", negatives=store.manifest.negative_points > 0)
        source = store.source(record.frame_id)
        assert "/" not in record.frame_id
        assert source.width_px * source.height_px <= 1 << 29
        for code in record.class_ids:
            assert any(info.code == code for info in store.manifest.classes)


def inspect(store: Store, out: Path) -> None:
    """Do what the commands `inspect`, `verify` and `view` do."""
    summarize_store(store)
    verify_store(store)
    write_view(store, out, limit=1)


def _attempt(guard: Guard, path: Path, number: int, what: object) -> None:
    # Run the slow part for only a tenth of the inputs: most stores that are refused are refused before it.
    guard.attempt(lambda: use(open_store(path)), what)
    if number % 10 == 0:
        shutil.rmtree(path.parent / "view", ignore_errors=True)
        guard.attempt(lambda: inspect(open_store(path), path.parent / "view"), what)


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("inputs", forms(25, 10_000))
def test_manifests_are_read_or_refused(small: Path, inputs: int, tally) -> None:
    path, guard = small / "zarr.json", Guard(small.parent)
    valid, whole = path.read_bytes(), json.loads(path.read_bytes())
    inspect(open_store(small), small.parent / "view")

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        _attempt(guard, small, guard.tried, data if len(data) < 500 else data[:500])

    with bounded_memory():
        for number in range(inputs // 2):
            attempt(mutated(valid, random.Random(number)))

        @settings(max_examples=inputs - inputs // 2)
        @given(documents(whole["attributes"]["bcss"]))
        def structured(manifest: dict[str, Any]) -> None:
            attempt(_encoded(whole | {"attributes": {"bcss": manifest}}))

        structured()
    tally("hostile manifests", guard)


@pytest.mark.parametrize("inputs", forms(25, 10_000))
def test_array_metadata_is_read_or_refused(small: Path, inputs: int, tally) -> None:
    inspect(open_store(small), small.parent / "view")
    guard, files = Guard(small.parent), sorted(small.rglob("zarr.json"))
    whole = {file: file.read_bytes() for file in files}

    def attempt(file: Path, data: bytes) -> None:
        file.write_bytes(data)
        try:
            _attempt(guard, small, guard.tried, (file.parent.name, data[:500]))
        finally:
            file.write_bytes(whole[file])

    with bounded_memory():
        for number in range(inputs // 2):
            draw = random.Random(number)
            file = draw.choice(files)
            attempt(file, mutated(whole[file], draw))
        hostile = st.sampled_from(files).flatmap(
            lambda file: st.tuples(st.just(file), documents(json.loads(whole[file])).map(_encoded))
        )
        settings(max_examples=inputs - inputs // 2)(given(hostile)(lambda pair: attempt(*pair)))()
    tally("hostile array metadata (zarr.json)", guard)


@pytest.mark.parametrize("inputs", forms(25, 10_000))
def test_chunks_are_read_or_refused(small: Path, inputs: int, tally) -> None:
    """Change bytes of chunks and shards, and correct the checksums of indices and images."""
    inspect(open_store(small), small.parent / "view")
    guard = Guard(small.parent)
    files = sorted(path for path in small.rglob("*") if path.is_file() and path.name != "zarr.json")
    whole = {file: file.read_bytes() for file in files}
    with bounded_memory():
        for number in range(inputs):
            draw = random.Random(number)
            file = draw.choice(files)
            data = mutated(whole[file], draw)
            if number % 2:
                data = with_crc32c(data[:-4])
            file.write_bytes(data)
            _attempt(guard, small, number, (file, number))
            file.write_bytes(whole[file])
    tally("hostile chunks and shards", guard)


_numbers = st.sampled_from(
    [-(2**31), -1, 0, 1, 2, 127, 255, 256, 65536, 2**31 - 1, 2**62, 0.5, 1e-5, 1e38, float("inf")]
)
_texts = st.sampled_from(
    ["", "..", "../../evil", "/tmp/evil", "images/c/abc", "images/zarr.json", "train", "[/b]", "\x1b[2J"]
)
_values = st.one_of(_numbers, _texts, st.just(float("nan")), st.integers(-9, 999), st.text(max_size=6))
_edits = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255), _values), min_size=1, max_size=4)


def edited(values: NDArray[Any], edits: list[tuple[int, int, Any]]) -> NDArray[Any]:
    """Return the values of a column with some replaced, as far as its type allows."""
    changed = values.copy()
    flat = changed.reshape(-1)
    for _, place, value in edits:
        with suppress(TypeError, ValueError, OverflowError):
            flat[place % len(flat)] = str(value) if values.dtype.kind in "OT" else value
    return changed


@pytest.mark.parametrize("inputs", forms(15, 10_000))
def test_values_of_columns_are_used_or_refused(small: Path, inputs: int, tally) -> None:
    """Write columns with Zarr itself, so that every checksum is correct and only the values are wrong."""
    inspect(open_store(small), small.parent / "view")
    guard, store = Guard(small.parent), open_store(small)
    columns = [str(path.parent.relative_to(small)) for path in sorted(small.glob("*/*/zarr.json"))]
    whole = {name: np.asarray(store.array(name)[:]) for name in columns}

    def attempt(edits: list[tuple[int, int, Any]]) -> None:
        name = columns[edits[0][0] % len(columns)]
        # Write through a separate group, outside the guard.
        array = zarr.open_group(small, mode="r+")[name]
        assert isinstance(array, zarr.Array)
        array[:] = edited(whole[name], edits)
        _attempt(guard, small, guard.tried, (name, edits))
        array[:] = whole[name]

    with bounded_memory():
        settings(max_examples=inputs)(given(_edits)(attempt))()
    tally("hostile values of columns", guard)
