"""The tables of prompt kinds decide which columns a store has, how they are checked, and which prompts it gives."""

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import zarr

from prep.build import build_store
from prep.config import BuildConfig
from prep.derive.points import DERIVATIONS, Surroundings
from prep.inspect import summarize_store
from prep.verify import verify_store
from schemas.errors import StoreError
from schemas.prompt_kinds import POINT_SETS, PROMPT_SOURCES, PointCounts, PointLabel, PointSet, PromptKind, PromptSource
from schemas.store.store import Store, open_store

TWO_DEEPEST = PointSet("two_deepest", PointLabel.POSITIVE, lambda _: 2)


def _two_deepest(around: Surroundings, count: int, _generator: np.random.Generator) -> np.ndarray:
    order = np.argsort(-np.where(around.mask, around.depth, -1), axis=None, kind="stable")[:count]
    inside = order[around.mask.ravel()[order]]
    rows, columns = np.unravel_index(inside, around.mask.shape)
    return (np.stack([columns, rows], axis=1) + around.mask_xy) * around.step + around.offset_xy


@pytest.fixture
def _with_two_deepest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a kind as an entry in each table of `schemas/prompt_kinds.py` and `prep/derive/points.py` would."""
    monkeypatch.setitem(POINT_SETS, "two_deepest", TWO_DEEPEST)
    monkeypatch.setitem(PROMPT_SOURCES, "two_deepest", PromptSource(has_box=True, point_sets=(TWO_DEEPEST,)))  # type: ignore[index]
    monkeypatch.setitem(DERIVATIONS, "two_deepest", _two_deepest)


def test_table_has_every_kind() -> None:
    assert tuple(PROMPT_SOURCES) == get_args(PromptKind)


def test_places_without_a_point_are_padding() -> None:
    columns = {name: points.columns(PointCounts(5, 0)) for name, points in POINT_SETS.items()}
    # A later kind may add sets.
    assert columns.items() >= {"interior": 1, "positive": 5, "negative": 1}.items()


@pytest.mark.usefixtures("_with_two_deepest")
def test_new_kind_takes_table_entries_and_nothing_else(sample_source: Path, store: Store, tmp_path: Path) -> None:
    build_store(sample_source, tmp_path / "s.zarr", BuildConfig(size_px=128))
    built = open_store(tmp_path / "s.zarr")
    assert verify_store(built) == []
    assert 1 < summarize_store(built).prompts["two_deepest"] <= 2
    for record in built:
        prompts = built.prompts(record.index, "two_deepest", negatives=True)  # pyright: ignore[reportArgumentType]
        for segment, prompt in zip(record.segments, prompts.values(), strict=True):
            clicks = prompt["point_coords"][prompt["point_labels"] == PointLabel.POSITIVE].astype(int)
            assert 1 <= len(clicks) <= 2
            assert segment[clicks[:, 1], clicks[:, 0]].all()
    # The points of the other sets do not change.
    for points in list(POINT_SETS.values())[:3]:
        np.testing.assert_array_equal(built.column(points.coords_path), store.column(points.coords_path))


@pytest.mark.usefixtures("_with_two_deepest")
def test_store_built_before_a_kind_lacks_it(store: Store) -> None:
    with pytest.raises(StoreError, match="prompts/two_deepest_coords: does not exist"):
        store.prompts(0, "two_deepest")  # pyright: ignore[reportArgumentType]
    assert verify_store(store) == []
    assert summarize_store(store).prompts.keys() == POINT_SETS.keys() - {"two_deepest"}


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_label_of_another_set_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    labels = zarr.open_group(tmp_path / "copy.zarr", mode="r+")[f"prompts/{name}_labels"]
    assert isinstance(labels, zarr.Array)
    values = np.asarray(labels[:])
    labels[:] = np.where(values == -1, -1, 1 - values)
    with pytest.raises(StoreError, match=f"{name}_labels: holds values that no build writes"):
        Store(tmp_path / "copy.zarr", check_files=False).column(f"prompts/{name}_labels")
