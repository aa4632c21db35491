import errno
import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image
from zarr.storage import LocalStore, WrapperStore

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from prep.verify import verify_store
from schemas.errors import UnreachableError
from schemas.store import store as store_module
from schemas.store.store import Store, open_store


@pytest.fixture(scope="module")
def two_rois(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two ROIs with 18 tiles."""
    folder = tmp_path_factory.mktemp("two")
    write_sample(folder / "source", rois=2, size_px=288, seed=1)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
    return folder / "s.zarr"


@pytest.fixture
def copy(two_rois: Path, tmp_path: Path) -> Path:
    shutil.copytree(two_rois, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


@pytest.mark.parametrize(
    "config",
    [
        BuildConfig(size_px=128),
        BuildConfig(size_px=128, objects="component", min_area_px=20, edge="pad"),
        BuildConfig(size_px=64, layout="resize"),
        BuildConfig(size_px=64, layout="resize", mpp_um=0.5),
        BuildConfig(size_px=96, stride_px=56, mpp_um=0.4, classes=(1, 2), ignore=(0, 7), min_tissue=0.2),
    ],
    ids=["label", "component", "resize", "resampled and resized", "resampled"],
)
def test_undamaged_stores_have_no_problem(sample_source: Path, tmp_path: Path, config: BuildConfig) -> None:
    build_store(sample_source, tmp_path / "s.zarr", config)
    opened = open_store(tmp_path / "s.zarr")
    seen: list[tuple[int, int]] = []
    assert verify_store(opened, lambda done, total: seen.append((done, total))) == []
    assert seen[-1][0] == seen[-1][1] > len(opened)


@pytest.mark.parametrize("name", ["images", "labels", "ignore", "segments"])
def test_flipped_byte_names_its_shard_and_tiles(copy: Path, name: str) -> None:
    (shard,) = [path for path in (copy / name / "c").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[8] ^= 4
    shard.write_bytes(data)
    problems = {problem.where: problem.what for problem in verify_store(open_store(copy))}
    key = shard.relative_to(copy).as_posix()
    assert "has other bytes" in problems[key]
    assert " 0 to " in problems[key]


def test_missing_shard_and_stray_file_are_named(copy: Path) -> None:
    shutil.rmtree(copy / "labels" / "c")
    (copy / "labels" / "old").write_text("left over")
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert ("labels/c/0/0/0", "is missing") in problems
    assert ("labels/old", "was not written by the build") in problems


def test_missing_column_is_named_once(copy: Path) -> None:
    (copy / "prompts" / "positive_coords" / "c" / "0" / "0" / "0").unlink()
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert [where for where, _ in problems] == ["prompts/positive_coords/c/0/0/0", "prompts/positive_coords"]
    assert "row 0: is missing" in problems[1][1]


def test_lost_points_are_not_taken_for_those_of_a_newer_kind(copy: Path) -> None:
    for name in ("coords", "labels"):
        shutil.rmtree(copy / "prompts" / f"positive_{name}")
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert ("prompts/positive_labels/zarr.json", "is missing") in problems
    lost = [what for where, what in problems if where == "prompts/positive_labels"]
    assert len(lost) == 1
    assert "does not exist" in lost[0]


def test_rows_of_a_damaged_shard_depend_on_the_label_type(write_roi, tmp_path: Path) -> None:
    # At 512 px a shard has 256 tiles with one byte per pixel, or 128 with two.
    labels = np.full((64, 140 * 64), 1000, np.uint16)
    source = write_roi("a", Image.fromarray(labels))
    out = tmp_path / "s.zarr"
    build_store(source, out, BuildConfig(size_px=512, stride_px=64, classes="all", edge="pad"))
    opened = open_store(out)
    rows = opened.array("labels").shards
    assert rows is not None
    assert rows[0] == 128
    assert len(opened) > 128
    (out / "labels" / "c" / "1" / "0" / "0").write_bytes(b"")
    problems = {problem.where: problem.what for problem in verify_store(opened)}
    assert problems["labels/c/1/0/0"] == f"has other bytes (tiles 128 to {len(opened) - 1})"


def _rewrite(path: Path, name: str, change) -> None:
    # An array takes this setting when it is opened.
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_group(path, mode="r+")[name]
    assert isinstance(array, zarr.Array)
    array[:] = change(np.asarray(array[:]))


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("labels", lambda v: np.where(v == 1, 2, v), "is not the segment that its labels give"),
        ("ignore", lambda v: v ^ 128, "its ignored pixels do not follow from its labels"),
        ("segments", lambda v: v ^ 1, "is not the segment that its labels give"),
        ("objects/area_px", lambda v: v + 1, "has area"),
        ("objects/touches_edge", lambda v: ~v, "the tile's edge"),
        ("objects/box_xyxy", lambda v: v // 2, "has a box that does not fit its segment"),
        ("prompts/positive_coords", lambda v: v * 0, "has a positive point outside its segment"),
        ("prompts/interior_labels", lambda v: v * 0 - 1, "has no point for the prompt centroid"),
    ],
)
def test_values_that_contradict_the_labels_are_named(copy: Path, name: str, change, what: str) -> None:
    _rewrite(copy, name, change)
    problems = [problem for problem in verify_store(open_store(copy)) if problem.where.startswith("tile")]
    assert any(what in problem.what for problem in problems)
    assert any("TCGA-" in problem.where for problem in problems)


def test_negative_point_on_its_segment_is_named(copy: Path) -> None:
    group = zarr.open_group(copy, mode="r+")
    interior, negative = group["prompts/interior_coords"], group["prompts/negative_coords"]
    assert isinstance(interior, zarr.Array)
    assert isinstance(negative, zarr.Array)
    values = np.asarray(negative[:])
    values[:, :1] = np.asarray(interior[:])
    negative[:] = values
    problems = [problem.what for problem in verify_store(open_store(copy))]
    assert any("has a negative point on its segment" in what for what in problems)


def test_negative_point_on_an_ignored_pixel_is_named(copy: Path) -> None:
    opened = open_store(copy)
    (index, *_) = [i for i, tile in enumerate(opened) if tile.ignore.any() and len(tile.object_ids)]
    y, x = np.argwhere(opened[index].ignore)[0]
    group = zarr.open_group(copy, mode="r+")
    coords = group["prompts/negative_coords"]
    assert isinstance(coords, zarr.Array)
    coords[opened.tile(index).object_rows.start, 0] = x, y
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    named = f"object {opened[index].object_ids[0]} has a negative point on its segment or on an ignored pixel"
    assert any(where.startswith(f"tile {index} ") and what == named for where, what in problems)


@pytest.mark.parametrize(
    ("keys", "where", "what"),
    [
        (("complete", "checksums_sha256"), "checksums", "are not those of the completion record"),
        (("complete", "manifest_sha256"), "zarr.json", "holds a manifest that differs from its completion record"),
        (("config_fingerprint",), "zarr.json", "holds settings that do not match its fingerprint"),
        (("tool_version",), "zarr.json", "holds a manifest that differs from its completion record"),
        (("sources", 0, "mask_sha256"), "zarr.json", "holds a manifest that differs from its completion record"),
    ],
)
def test_wrong_digest_is_named(copy: Path, keys: tuple[str | int, ...], where: str, what: str) -> None:
    metadata = json.loads((copy / "zarr.json").read_text())
    entries = metadata["attributes"]["bcss"]
    for key in keys[:-1]:
        entries = entries[key]
    value = entries[keys[-1]]
    entries[keys[-1]] = value[1:] + value[:1]
    (copy / "zarr.json").write_text(json.dumps(metadata))
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert (where, what) in problems
    # Settings are part of the manifest, too.
    assert {found for found, _ in problems} == {where}


def test_wrong_sizes_are_named(copy: Path) -> None:
    _rewrite(copy, "checksums/size_bytes", lambda v: v + 1)
    problems = {problem.where: problem.what for problem in verify_store(open_store(copy))}
    assert "bytes for " in problems["checksums/size_bytes"]


def test_point_outside_its_tile_is_named_once(copy: Path) -> None:
    _rewrite(copy, "prompts/interior_coords", lambda v: v * 0 - 1)
    found = [problem for problem in verify_store(open_store(copy)) if problem.where == "prompts/interior_coords"]
    assert ["holds values that no build writes" in problem.what for problem in found] == [True]


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "images", "images/c/abc", ""])
def test_key_outside_the_store_is_never_opened(copy: Path, name: str) -> None:
    (copy.parent.parent / "secret").write_text("text")
    _rewrite(copy, "checksums/key", lambda v: np.array([name, *v[1:]], object))
    (problem,) = verify_store(open_store(copy))
    assert problem.where == "checksums"
    assert "key: holds values that no build writes" in problem.what


@pytest.mark.parametrize(("key", "value"), [("seed", -1), ("size_px", "x"), ("ignore", [1, 2])])
def test_settings_that_no_build_has_are_named(copy: Path, key: str, value: object) -> None:
    metadata = json.loads((copy / "zarr.json").read_text())
    metadata["attributes"]["bcss"]["config"][key] = value
    (copy / "zarr.json").write_text(json.dumps(metadata))
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert ("zarr.json", "holds settings that no build has") in problems


class _FailingStore(WrapperStore[Any]):
    """A device that fails after the files were hashed: only reads of ranges fail, which read rows."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        if byte_range is not None and key.startswith("labels/"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await super().get(key, prototype, byte_range)


def test_failing_device_is_not_reported_as_damage_of_each_tile(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "zarr_location", lambda path: _FailingStore(LocalStore(path, read_only=True)))
    with pytest.raises(UnreachableError, match=r"labels row 0: cannot be read \(Input/output error\)"):
        verify_store(open_store(copy))


def test_patient_in_two_splits_is_named(copy: Path) -> None:
    _rewrite(copy, "tiles/split", lambda v: np.array(["val", *v[1:]], object))
    patient = str(Store(copy, check_files=False).column("tiles/patient")[0])
    problems = {problem.where: problem.what for problem in verify_store(open_store(copy))}
    assert problems["tiles/split"] == f"puts patient {patient} into train and val"


def test_scale_that_leaves_a_part_of_the_roi_out_is_named(sample_source: Path, tmp_path: Path) -> None:
    build_store(sample_source, tmp_path / "s.zarr", BuildConfig(size_px=64, layout="resize", mpp_um=0.5))
    opened = open_store(tmp_path / "s.zarr")
    width, height = opened[0].roi_size_xy
    assert opened[0].scale == pytest.approx((64 / width, 64 / height))
    _rewrite(tmp_path / "s.zarr", "tiles/scale_xy", lambda v: v / 2)
    problems = [problem.what for problem in verify_store(open_store(tmp_path / "s.zarr"))]
    assert "its scale does not make one tile of its ROI" in problems


def test_small_objects_do_not_take_the_memory_of_a_tile_each(write_roi, tmp_path: Path) -> None:
    labels = np.full((512, 512), 2, np.uint8)
    labels[::8, ::8] = 1
    config = BuildConfig(size_px=512, objects="component", min_area_px=64)
    build_store(write_roi("a", labels), tmp_path / "s.zarr", config)
    opened = open_store(tmp_path / "s.zarr")
    tracemalloc.start()
    assert verify_store(opened) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # At a quarter of a megabyte each, the masks would take a gigabyte.
    assert peak < 50e6
