import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prep.build import build_store
from prep.config import BuildConfig
from prep.verify import verify_store
from schemas.errors import StoreError
from schemas.store.store import Store, open_store

pytest.importorskip("imagecodecs", reason="the small extra is not installed")


@pytest.fixture(scope="module")
def small(sample_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("small") / "s.zarr"
    build_store(sample_source, path, BuildConfig(size_px=128, codec="small"))
    return open_store(path)


def test_small_store_holds_the_same_pixels_in_fewer_bytes(small: Store, store: Store) -> None:
    for one, other in zip(small, store, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    sizes = [sum(f.stat().st_size for f in Path(s.path, "images").rglob("*") if f.is_file()) for s in (small, store)]
    assert sizes[0] < 0.8 * sizes[1]
    assert verify_store(small) == []


def test_plain_zarr_finds_the_codec(small: Store, store: Store) -> None:
    code = "import sys, zarr; print(int(zarr.open(sys.argv[1])['images'][3].sum()))"
    done = subprocess.run([sys.executable, "-c", code, small.path], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(store[3].image.sum())


def test_flipped_byte_is_an_error(small: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(small.path, tmp_path / "copy.zarr")
    (shard,) = [path for path in (tmp_path / "copy.zarr" / "images" / "c").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="images row 0"):
        open_store(tmp_path / "copy.zarr")[0]
