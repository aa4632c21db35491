"""A feature cache is valid Zarr, keeps every bit, and reports damage instead of reading wrong numbers."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import zarr

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import StoreError
from schemas.store.store import Store, open_store
from train.features.cache import FeatureCache, feature_cache
from train.model.promptable import PromptableSam

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frozen() -> PromptableSam:
    torch.manual_seed(0)
    model = PromptableSam("nano", 128)
    model.freeze(("image_encoder",))
    return model


@pytest.fixture
def cache(frozen: PromptableSam, store: Store, tmp_path: Path) -> FeatureCache:
    """A cache for one test, with arrays but without tiles."""
    empty = replace(feature_cache(frozen, store, CPU, views=8), path=tmp_path / "features.zarr")
    with empty.being_filled():
        pass
    return empty


def _drawn(cache: FeatureCache) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(cache.views, *level.shape, generator=generator).bfloat16() for level in cache.levels]


def test_written_features_are_read_exactly_and_also_by_zarr(cache: FeatureCache) -> None:
    kept = _drawn(cache)
    cache.write(5, kept)
    assert cache.missing([4, 5, 6]) == [4, 6]
    for view in range(8):
        for found, written in zip(cache.read(5, view), kept, strict=True):
            assert found.dtype == torch.bfloat16
            assert torch.equal(found, written[view])
    group = zarr.open_group(cache.path, mode="r")
    assert group.attrs["bcss_features"] == cache.description
    for level, written in zip(cache.levels, kept, strict=True):
        array = cast("Any", group[level.name])
        assert array.shape == (cache.rows, 8, *level.shape)
        assert array.attrs["bits_of"] == "bfloat16"
        np.testing.assert_array_equal(array[5], written.view(torch.uint16).numpy())
    assert sum(path.stat().st_size for path in cache.files(5)) == cache.tile_bytes
    assert cache.tile_bytes == pytest.approx(8 * cache.view_bytes, rel=1e-3)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_flipped_bit_is_an_error_only_in_its_own_view(cache: FeatureCache, level: int) -> None:
    cache.write(3, _drawn(cache))
    path = cache.files(3)[level]
    data = bytearray(path.read_bytes())
    data[4 * len(data) // 8] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{path.name} view 4: is damaged; delete this file and repeat"):
        cache.read(3, 4)
    assert torch.equal(cache.read(3, 5)[level], _drawn(cache)[level][5])


def test_missing_and_short_files_are_errors_and_count_as_missing(cache: FeatureCache) -> None:
    with pytest.raises(StoreError, match="is missing; repeat the command"):
        cache.read(2, 0)
    for tile in (2, 3):
        cache.write(tile, _drawn(cache))
    cache.files(2)[1].unlink()
    short = cache.files(3)[2]
    short.write_bytes(short.read_bytes()[:-5000])
    with pytest.raises(StoreError, match="is damaged"):
        cache.read(3, 7)
    assert cache.missing([2, 3]) == [2, 3]


def test_incomplete_metadata_of_a_killed_run_is_written_again_and_tiles_are_kept(cache: FeatureCache) -> None:
    cache.write(1, _drawn(cache))
    (cache.path / "zarr.json").write_text("")
    (cache.path / "stride_4" / "zarr.json").unlink()
    (cache.path / "new" / "stride_4").mkdir(parents=True)
    with cache.being_filled():
        pass
    found = cast("Any", zarr.open_group(cache.path, mode="r")["stride_4"])
    np.testing.assert_array_equal(found[1, 2], _drawn(cache)[0][2].view(torch.uint16).numpy())
    assert cache.missing([1]) == []


def test_only_one_run_at_a_time_fills_a_cache(cache: FeatureCache) -> None:
    with (
        cache.being_filled(),
        pytest.raises(StoreError, match="is being filled by another run; wait"),
        cache.being_filled(),
    ):
        pass


def test_failed_write_leaves_no_partial_file(cache: FeatureCache, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written .*; free space"):
            cache.write(0, _drawn(cache))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (cache.path / "stride_4").iterdir()] == ["zarr.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), replace(cache, path=tmp_path / "file").being_filled():
        pass


def test_folder_name_depends_on_everything_that_the_features_depend_on(
    frozen: PromptableSam, store: Store, sample_source: Path, tmp_path: Path
) -> None:
    reference = feature_cache(frozen, store, CPU, views=8)
    assert reference.path.parent == Path(store.path).parent
    assert reference.path.name.startswith("sample.zarr.features-")
    assert feature_cache(_copy(frozen), open_store(store.path), CPU, views=8) == reference
    trained = _copy(frozen)
    with torch.no_grad():
        trained.sam.sam_mask_decoder.conv_s0.weight += 1
    assert feature_cache(trained, store, CPU, views=8) == reference
    encoder = _copy(frozen)
    with torch.no_grad():
        encoder.sam.image_encoder.neck.convs[0].conv.bias[7] += 1e-3
    fine = _copy(frozen, "sam_mask_decoder.conv_s0")
    other_fine = _copy(frozen, "sam_mask_decoder.conv_s0")
    with torch.no_grad():
        other_fine.sam.sam_mask_decoder.conv_s0.weight += 1
    larger = PromptableSam("nano", 160)
    larger.load_state_dict(frozen.state_dict())
    larger.freeze(("image_encoder",))
    build_store(sample_source, tmp_path / "sample.zarr", BuildConfig(size_px=128, seed=5))
    others = [
        feature_cache(encoder, store, CPU, views=8),
        feature_cache(fine, store, CPU, views=8),
        feature_cache(other_fine, store, CPU, views=8),
        feature_cache(larger, store, CPU, views=8),
        feature_cache(frozen, open_store(tmp_path / "sample.zarr"), CPU, views=8),
        feature_cache(frozen, store, CPU, views=1),
        feature_cache(frozen, store, torch.device("cuda"), views=8),
    ]
    assert len({other.path.name for other in [reference, *others]}) == 8


def _copy(model: PromptableSam, *frozen: str) -> PromptableSam:
    copy = PromptableSam("nano", 128)
    copy.load_state_dict(model.state_dict())
    copy.freeze(("image_encoder", *frozen))
    return copy
