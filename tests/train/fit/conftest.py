"""Stores for tests of runs."""

from __future__ import annotations

import pytest

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from prep.source.discover import RoiSource
from schemas.manifest import Split
from schemas.store.store import Store, open_store


@pytest.fixture(scope="session")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of two ROIs, one to train on and one to validate."""
    folder = tmp_path_factory.mktemp("small")
    write_sample(folder / "source", rois=2, size_px=160, seed=1)

    def split(rois: list[RoiSource]) -> dict[str, Split]:
        return {rois[0].patient: "train", rois[1].patient: "val"}

    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128), splitter=split)
    return open_store(folder / "s.zarr")
