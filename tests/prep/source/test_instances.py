"""Masks of instances: each value is one object, also where objects touch and where a tile cuts them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from prep.cli import main
from prep.source.instances import read_instances
from prep.verify import verify_store
from schemas.bits import pack_mask
from schemas.errors import SourceError
from schemas.store.store import Store, open_store


def _touching(offset: int = 0) -> np.ndarray:
    """Slanted stripes that touch, in 96 x 96 px, with ids from 1 (plus an offset) and a hole: boxes share pixels."""
    y, x = np.mgrid[:96, :96]
    ids = y // 16 * 6 + (x + y) % 96 // 16 + 1 + offset
    ids[4:8, 4:8] = 0
    return ids


def _write(source: Path, stem: str, ids: np.ndarray, classes: np.ndarray | None = None) -> None:
    for name in ("images", "masks", "classes"):
        (source / name).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*ids.shape, 3), np.uint8)
    Image.fromarray(pixels).save(source / "images" / f"{stem}.png")
    if ids.max() > 65535:
        tifffile.imwrite(source / "masks" / f"{stem}.tif", ids.astype(np.uint32))
    else:
        Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(source / "masks" / f"{stem}.png")
    if classes is not None:
        Image.fromarray(classes.astype(np.uint8)).save(source / "classes" / f"{stem}.png")


def _build(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path, *flags: str) -> Store:
    base = ["bcss-prep", "build", str(source), "--out", str(out), "--objects", "instance", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", [*base, "--size", "64", *flags])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    return open_store(out)


@pytest.mark.parametrize("offset", [0, 219, 5000, 70_000, 2**32 - 40])
def test_each_id_is_one_object_in_every_tile_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    ids = np.where(_touching() > 0, _touching() + offset, 0)
    _write(tmp_path / "d", "a", ids)
    store = _build(monkeypatch, tmp_path / "d", tmp_path / "s.zarr")
    assert store.manifest.object_kind == "instance"
    assert [info.name for info in store.manifest.classes] == ["object"]
    assert verify_store(store) == []
    column = store.column
    rows = 0
    for record in store:
        x, y = record.origin_xy
        window = ids[y : y + 64, x : x + 64]
        assert not record.ignore.any()
        sources = column("objects/source_id")[store.tile(record.index).object_rows]
        assert sorted(sources.tolist()) == sorted(set(window.ravel().tolist()) - {0})
        np.testing.assert_array_equal(record.object_ids, record.roi_components)
        for segment, source in zip(record.segments, sources.tolist(), strict=True):
            np.testing.assert_array_equal(segment, window == source)
        rows += len(sources)
        for prompt, segment in zip(
            store.prompts(record.index, "multi_point", negatives=True).values(), record.segments, strict=True
        ):
            points, labels = prompt["point_coords"].astype(int), prompt["point_labels"]
            assert segment[points[labels == 1][:, 1], points[labels == 1][:, 0]].all()
            # Neighbors touch, so clicks off the object are on them.
            assert not segment[points[labels == 0][:, 1], points[labels == 0][:, 0]].any()
            assert (labels == 0).any()
    assert rows == len(column("objects/source_id")) > 36
    # The number of an instance is the same in all tiles that it is cut into.
    pairs = set(zip(column("objects/roi_component").tolist(), column("objects/source_id").tolist(), strict=True))
    assert len(pairs) == 36


def test_wide_ids_are_numbered_also_where_none_is_background(tmp_path: Path) -> None:
    values = np.array([[70_000, 70_000], [9, 4_000_000_000]], np.uint32)
    for background in (False, True):
        values[0, 0] = 0 if background else 70_000
        tifffile.imwrite(tmp_path / "m.tif", values)
        ids, source_ids = read_instances(tmp_path / "m.tif")
        assert source_ids == {1: 9, 2: 70_000, 3: 4_000_000_000}
        np.testing.assert_array_equal(ids, [[0 if background else 2, 2], [1, 3]])


def test_class_mask_and_table_give_the_same_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _touching()
    classes = np.where(ids % 3 == 0, 3, 5) * (ids > 0)
    _write(tmp_path / "d", "a", ids, classes)
    (tmp_path / "map.tsv").write_text("code\tname\n3\tlymphocyte\n5\ttumor cell\n")
    lines = [f"{number},{'lymphocyte' if number % 3 == 0 else 5}" for number in range(1, 37)]
    (tmp_path / "ids.csv").write_text("\n".join(["id,class", *lines]))
    named = ("--class-map", str(tmp_path / "map.tsv"))
    by_mask = _build(monkeypatch, tmp_path / "d", tmp_path / "m.zarr", "--class-mask", "classes", *named)
    by_table = _build(
        monkeypatch, tmp_path / "d", tmp_path / "t.zarr", "--instance-classes", str(tmp_path / "ids.csv"), *named
    )
    for store in (by_mask, by_table):
        assert [info.name for info in store.manifest.classes] == ["lymphocyte", "tumor cell"]
        numbers, found = store.column("objects/source_id"), store.column("objects/class_id")
        np.testing.assert_array_equal(found, np.where(numbers % 3 == 0, 3, 5))
        assert verify_store(store) == []
    for given in (("--class-mask", "classes"), ("--instance-classes", str(tmp_path / "ids.csv"))):
        # Without instances, the numbers of the mask would become classes.
        error = _error(tmp_path / "d", tmp_path / "c.zarr", *given, objects="label")
        assert "read as classes; add --objects instance" in error
    both = ("--class-mask", "classes", "--instance-classes", str(tmp_path / "ids.csv"))
    assert "--instance-classes: gives the classes of instances, and so do masks such as" in _error(
        tmp_path / "d", tmp_path / "b.zarr", *both, *named
    )
    one = _build(monkeypatch, tmp_path / "d", tmp_path / "o.zarr", "--class-mask", "classes", *named, "--classes", "3")
    assert set((one.column("objects/source_id") % 3).tolist()) == {0}
    # Instances of other classes are background.
    assert set(np.unique(one[0].labels).tolist()) <= {0, *range(3, 37, 3)}
    assert verify_store(one) == []


def test_instance_of_two_classes_and_too_many_instances_are_refused(tmp_path: Path) -> None:
    ids = _touching()
    classes = (ids > 0).astype(np.uint8)
    classes[0, 0] = 2
    _write(tmp_path / "d", "a", ids, classes)
    error = _error(tmp_path / "d", tmp_path / "s.zarr", "--class-mask", "classes")
    assert "a.png: gives the instance 1 the classes 1 and 2; give each instance one class" in error
    tifffile.imwrite(tmp_path / "many.tif", np.arange(65536 * 2, dtype=np.uint32).reshape(256, 512))
    with pytest.raises(SourceError, match="has 131071 instances, but a ROI can have at most 65535"):
        read_instances(tmp_path / "many.tif")
    assert "cannot be used with --objects label" in _error(
        tmp_path / "d", tmp_path / "s.zarr", "--dataset", "instances", objects="label"
    )
    assert "whose class is unknown" in _error(
        tmp_path / "d", tmp_path / "s.zarr", "--instance-classes", str(_table(tmp_path))
    )


def _table(folder: Path) -> Path:
    path = folder / "few.csv"
    path.write_text("id,class\n1,1\n")
    return path


def _error(source: Path, out: Path, *flags: str, objects: str = "instance") -> str:
    import subprocess

    command = ["build", str(source), "--out", str(out), "--objects", objects, "--workers", "1", "--size", "64", *flags]
    done = subprocess.run([sys.executable, "-m", "prep.cli", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return next(line for line in done.stderr.splitlines() if "error:" in line)


def test_verify_finds_an_id_with_two_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "d", "a", _touching())
    store = _build(monkeypatch, tmp_path / "d", tmp_path / "s.zarr")
    import zarr

    array = zarr.open_group(store.path, mode="r+")["objects/source_id"]
    assert isinstance(array, zarr.Array)
    values = array[:]
    twice = np.flatnonzero(values == 4)
    assert len(twice) > 1
    array[int(twice[0])] = 5
    problems = [f"{problem.where}: {problem.what}" for problem in verify_store(Store(store.path, check_files=False))]
    assert any("objects/source_id: gives the instance 4 of a both 5 and 4" in problem for problem in problems)


def test_table_of_classes_may_name_files_instead_of_rois(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "d", "a_0000", np.full((64, 64), 1))
    (tmp_path / "d" / "masks" / "a_0000.png").rename(tmp_path / "d" / "masks" / "a.png")
    table = tmp_path / "classes.csv"
    table.write_text("frame_id,id,class\na_0000.png,1,7\n")
    flags = ("--instance-classes", str(table), "--image-suffix", "_0000")
    store = _build(monkeypatch, tmp_path / "d", tmp_path / "s.zarr", *flags)
    assert store.column("objects/class_id").tolist() == [7]


@pytest.mark.parametrize("flags", [("--ignore", "ambiguous"), ("--ignore", "5"), ()])
def test_pixels_of_instances_of_an_ignored_class_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    ids = _touching()
    is_ignored = np.isin(ids % 3, 1) & (ids > 0)
    # A class of this name is ignored unless the user says something else.
    (tmp_path / "map.tsv").write_text(f"code\tname\n3\tlymphocyte\n5\t{'ambiguous' if flags else 'ignore'}\n")
    lines = [f"{number},{5 if number % 3 == 1 else 3}" for number in range(1, 37)]
    (tmp_path / "ids.csv").write_text("\n".join(["id,class", *lines]))
    _write(tmp_path / "d", "a", ids)
    named = ("--class-map", str(tmp_path / "map.tsv"), "--instance-classes", str(tmp_path / "ids.csv"))
    store = _build(monkeypatch, tmp_path / "d", tmp_path / "s.zarr", *named, *flags)
    assert [info.name for info in store.manifest.classes] == ["lymphocyte"]
    for record in store:
        x, y = record.origin_xy
        window = np.s_[y : y + 64, x : x + 64]
        np.testing.assert_array_equal(record.ignore, is_ignored[window])
        np.testing.assert_array_equal(record.segments.any(0), (ids[window] > 0) & ~is_ignored[window])
    assert verify_store(store) == []

    import zarr

    array = zarr.open_group(store.path, mode="r+")["ignore"]
    assert isinstance(array, zarr.Array)
    ignore, window = store[0].ignore, ids[:64, :64]
    # A pixel of the background, all of it, half of an ignored instance, and a whole instance that is an object.
    half = (window == 1) & (np.arange(64) < 4)
    for changed in ((window == 0) & (np.arange(64) == 5), window == 0, half, window == 2):
        assert changed.any()
        array[0] = pack_mask(ignore ^ changed)
        problems = [problem.what for problem in verify_store(Store(store.path, check_files=False))]
        assert any("ignored pixels do not follow" in what or "labels give" in what for what in problems)
