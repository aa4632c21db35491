from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store

BuildRois = Callable[..., Store]


@pytest.fixture(scope="package")
def rois(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ROIs of 225 x 200 px."""
    folder = tmp_path_factory.mktemp("rois")
    write_sample(folder, rois=2, size_px=200, seed=3)
    return folder


@pytest.fixture
def build_rois(rois: Path, tmp_path: Path) -> BuildRois:
    """Builds a store of the two ROIs with tiles of 64 px and the given settings."""

    def build(**settings: Any) -> Store:
        path = tmp_path / "s.zarr"
        build_store(rois, path, BuildConfig.model_validate({"size_px": 64, **settings}))
        return open_store(path)

    return build
