"""Damage a store's files: change, cut, remove or swap them, and see whether the reader or `verify` notices."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from prep.verify import verify_store
from schemas.errors import BcssError
from schemas.layout import array_specs
from schemas.prompt_kinds import PointCounts
from schemas.store.store import Store, open_store
from tests.faults.forms import forms

CHECKSUMS = ("checksums/key", "checksums/sha256", "checksums/size_bytes")
ARRAYS = (*(spec.path for spec in array_specs(128, "uint8", PointCounts(8, 8))), *CHECKSUMS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of other data with the same shapes."""
    folder = tmp_path_factory.mktemp("other")
    write_sample(folder / "source", rois=6, size_px=288, seed=2)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
    return folder / "s.zarr"


def _content(store: Store) -> list[object]:
    """Return everything that a reader can read."""
    found: list[object] = [store.column(path) for path in ARRAYS if "/" in path]
    for record in store:
        found += [record.image, record.labels, record.ignore, record.segments]
    return found


def _outcome(copy: Path, before: list[object]) -> str:
    """Say who notices damage: the reader, only `bcss-prep verify`, or nobody; unnoticed damage must change nothing."""
    opened = open_store(copy)
    try:
        now = _content(opened)
    except BcssError:
        # If the reader notices damage, `verify` must notice it, too.
        assert verify_store(opened)
        return "seen_by_the_reader"
    same = len(now) == len(before) and all(
        np.array_equal(np.asarray(one), np.asarray(another)) for one, another in zip(now, before, strict=True)
    )
    if verify_store(opened):
        return "read_the_same_and_seen_by_verify" if same else "seen_by_verify_alone"
    assert same
    return "changed_nothing"


def _files(copy: Path, array: str) -> list[Path]:
    return [path for path in sorted((copy / array / "c").rglob("*")) if path.is_file()]


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


@pytest.mark.parametrize("flips", forms(0, 6))
def test_flipped_bytes(store: Store, copy: Path, flips: int, tally) -> None:
    before, counts, draw = _content(store), Counter[str](), random.Random(0)
    # The short form tests only the four pixel arrays and one column.
    for array in ARRAYS if flips else (*ARRAYS[:4], "objects/class_id"):
        for file in _files(copy, array):
            whole = file.read_bytes()
            for _ in range(max(flips, 1)):
                data = bytearray(whole)
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                file.write_bytes(data)
                counts[_outcome(copy, before)] += 1
            file.write_bytes(whole)
    assert counts["seen_by_the_reader"] > 3
    assert not counts["seen_by_verify_alone"]
    tally("a byte flipped in a chunk or shard", tried=counts.total(), **counts)


@pytest.mark.faults
def test_missing_files(store: Store, copy: Path, tally) -> None:
    before, counts = _content(store), Counter[str]()
    for array in ARRAYS:
        for file in _files(copy, array):
            whole = file.read_bytes()
            file.unlink()
            counts[_outcome(copy, before)] += 1
            file.write_bytes(whole)
    assert counts == {"seen_by_the_reader": counts.total()}
    tally("a chunk or shard missing", tried=counts.total(), **counts)


@pytest.mark.faults
def test_truncated_files(store: Store, copy: Path, tally) -> None:
    before, counts = _content(store), Counter[str]()
    for array in ARRAYS:
        for file in _files(copy, array):
            whole = file.read_bytes()
            for length in (0, 1, len(whole) // 2, len(whole) - 1):
                file.write_bytes(whole[:length])
                counts[_outcome(copy, before)] += 1
            file.write_bytes(whole)
    assert counts == {"seen_by_the_reader": counts.total()}
    tally("a chunk or shard truncated", tried=counts.total(), **counts)


@pytest.mark.faults
def test_files_of_another_build(store: Store, copy: Path, other: Path, tally) -> None:
    """A shard of another build is valid in itself, so only contradictions reveal it; `verify` always notices it."""
    before, counts = _content(store), Counter[str]()
    for array in ARRAYS:
        for file in _files(copy, array):
            whole = file.read_bytes()
            stranger = other / file.relative_to(copy)
            if stranger.read_bytes() == whole:
                continue
            shutil.copy(stranger, file)
            counts[_outcome(copy, before)] += 1
            file.write_bytes(whole)
    assert not counts["changed_nothing"]
    tally("a chunk or shard of another build", tried=counts.total(), **counts)
