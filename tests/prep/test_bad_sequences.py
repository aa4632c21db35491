"""Sequences that cannot be used are one line, objects get their classes, and damage of the columns is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.plan import read_source
from prep.source.discover import DataSet
from prep.verify import verify_store
from schemas.errors import ConfigError, StoreError
from schemas.store.store import Store, open_store
from tests.prep.conftest import Build
from tests.sequences import HEIGHT, WIDTH, Masks, some_masks, write_sequences


def _last_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return line


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,a.png,,0", "line 2: has sequence ''; give a name without a slash"),
        ("a.png,a.png,x/y,0", "line 2: has sequence 'x/y'; give a name without a slash"),
        ("a.png,a.png,x,one", "line 2: has frame 'one'; give a whole number from 0"),
        ("a.png,a.png,x,", "line 2: has no frame, and a.png does not end in a number; fill the column frame"),
        (",a.png,x,1", "line 2: has no image; fill the cell, or remove the row"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, row: str, message: str, build: Build, capsys) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(f"image,mask,sequence,frame\n{row}")
    assert build(tmp_path / "t.csv", tmp_path / "s.zarr") == 1
    assert message in _last_line(capsys)


def _without_frame(source: Path) -> None:
    (source / "images" / "a" / "00005.jpg").unlink()


def _with_gap(source: Path) -> None:
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (source / kind / "cell" / f"00002.{ending}").unlink()


def _with_other_size(source: Path) -> None:
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        path = source / kind / "b" / f"00010.{ending}"
        with Image.open(path) as picture:
            picture.resize((96, 80), Image.Resampling.NEAREST).save(path)


def _with_wide_values(source: Path) -> None:
    wide = np.full((HEIGHT, WIDTH), 70_000, np.int32)
    Image.fromarray(wide).save(source / "masks" / "a" / "00000.png", format="TIFF")
    (source / "masks" / "a" / "00000.png").rename(source / "masks" / "a" / "00000.tif")


def _with_binary_masks(source: Path) -> None:
    for path in (source / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            ids = np.asarray(mask)
        Image.fromarray(np.where(ids == 1, 255, 0).astype(np.uint8)).save(path)


def _unchanged(_source: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (_with_gap, "", "cell/00003.jpg: follows frame 1, but the frames of cell are 1 apart; add the missing frames"),
        (_without_frame, "", "masks/a/00005.png: has no image "),
        (
            _with_other_size,
            "",
            "00010.jpg: is 96 x 80 px, but 00000.jpg, of the same sequence, is 104 x 80 px; give all",
        ),
        (_unchanged, "--unpaired error", "images/cell/00001.jpg: has no mask "),
        (
            _unchanged,
            "--objects component",
            "--objects component: cannot be used with sequences, where each value of a ",
        ),
        (
            _unchanged,
            "--objects label",
            "--objects label: cannot be used with sequences, where each value of a mask is ",
        ),
        (_unchanged, "--dataset bcss", "--dataset bcss: cannot be used with sequences; leave it out"),
        (_unchanged, "--min-tissue 0.5", "--min-tissue 0.5: would leave a tile out of some frames and not of others; "),
        (_with_wide_values, "", "00000.tif: has values beyond 16 bits; save the mask with values of 0 to 65535"),
        (
            _with_binary_masks,
            "",
            "(10 checked, this is the first); check --classes and --min-area; if 255 is an object,",
        ),
    ],
)
def test_bad_sequences_are_an_error_of_one_line(
    sequence_folder: Path,
    tmp_path: Path,
    build: Build,
    capsys,
    change: Callable[[Path], None],
    flags: str,
    message: str,
) -> None:
    for kind in ("images", "masks"):
        shutil.copytree(sequence_folder / kind, tmp_path / "d" / kind)
    change(tmp_path / "d")
    assert build(tmp_path / "d", tmp_path / "s.zarr", "--sequences", *flags.split()) == 1
    assert message in _last_line(capsys)


def _write_classes(source: Path, masks: Masks, changes: bool) -> None:
    """Write masks of classes: object 1 has class 3 and object 7 class 4, which changes in the last frame of `c`."""
    for name, frames in masks.items():
        (source / "classes" / name).mkdir(parents=True)
        for number, ids in frames.items():
            if ids is not None:
                other = 3 if changes and (name, number) == ("c", 10) else 4
                classes = np.select([ids == 1, ids == 7], [3, other], 0).astype(np.uint8)
                Image.fromarray(classes).save(source / "classes" / name / f"{number:05d}.png")


@pytest.mark.parametrize("flags", [(), ("--classes", "4")])
def test_object_that_changes_its_class_is_an_error_of_one_line(tmp_path: Path, build: Build, capsys, flags) -> None:
    source = write_sequences(tmp_path / "d", some_masks())
    _write_classes(source, some_masks(), changes=True)
    wanted = ("--sequences", "--class-mask", "classes", *flags)
    assert build(source, tmp_path / "s.zarr", *wanted, "--class-map", str(_class_map(tmp_path))) == 1
    line = _last_line(capsys)
    assert "masks/c/00010.png: gives the object 7 the class 3, but masks/c/00000.png gives it the class 4; give" in line


def test_second_mask_and_table_give_classes(tmp_path: Path, build: Build) -> None:
    source = write_sequences(tmp_path / "d", some_masks())
    _write_classes(source, some_masks(), changes=False)
    rows = [f"{name},{track},{code}" for name in some_masks() for track, code in ((1, 3), (7, "pore"))]
    (tmp_path / "ids.csv").write_text("\n".join(["sequence,id,class", *rows]))
    ways = (("--class-mask", "classes"), ("--instance-classes", str(tmp_path / "ids.csv")))
    columns: list[list[int]] = []
    for number, way in enumerate(ways):
        out = tmp_path / f"{number}.zarr"
        named = ("--class-map", str(_class_map(tmp_path)))
        assert build(source, out, "--sequences", "--layout", "resize", *way, *named) == 0
        store = open_store(out)
        assert verify_store(store) == []
        assert [info.name for info in store.manifest.classes] == ["gland", "pore"]
        tracks = store.column("objects/track")
        np.testing.assert_array_equal(store.column("objects/class_id"), np.where(tracks == 1, 3, 4))
        columns.append(store.column("objects/class_id").tolist())
    assert columns[0] == columns[1]


def _class_map(folder: Path) -> Path:
    (folder / "map.tsv").write_text("code\tname\n3\tgland\n4\tpore\n")
    return folder / "map.tsv"


def test_configuration_without_sequences_refuses_them_and_the_other_way_round(
    sequence_folder: Path, tmp_path: Path
) -> None:
    frames = read_source(sequence_folder, BuildConfig(sequences=True).folders)
    with pytest.raises(ConfigError, match="holds sequences; set sequences=True in the configuration"):
        build_store(frames, tmp_path / "s.zarr", BuildConfig())
    rois = DataSet(
        sequence_folder, [replace(roi, sequence="", frame_number=-1) for roi in frames.rois if roi.mask_path]
    )
    with pytest.raises(ConfigError, match="holds no sequences; set sequences=False in the configuration"):
        build_store(rois, tmp_path / "s.zarr", BuildConfig(sequences=True))


def _set(store: Path, path: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    array = zarr.open_group(store, mode="r+")[path]
    assert isinstance(array, zarr.Array)
    array[:] = edit(np.asarray(array[:]))


def _edited(place: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def edit(values: np.ndarray) -> np.ndarray:
        values[place] = value
        return values

    return edit


@pytest.mark.parametrize(
    ("path", "edit"),
    [
        ("tiles/sequence", _edited(0, 1)),
        ("tiles/sequence", _edited(-1, 5)),
        ("tiles/sequence", _edited(3, -1)),
        ("tiles/frame_number", _edited(0, -1)),
        ("tiles/frame_number", _edited(1, 3)),
        ("tiles/frame_number", lambda values: np.concatenate([values[4:8], values[:4], values[8:]])),
        ("tiles/frame_number", lambda values: np.concatenate([values[:4], values[:4], values[8:]])),
        ("tiles/origin_xy", lambda values: np.concatenate([values[:1] + 1, values[1:]])),
        ("tiles/scale_xy", _edited(5, 2)),
        ("objects/track", _edited(0, 2)),
        ("objects/track", lambda values: -values),
    ],
)
def test_columns_that_no_build_writes_are_refused(tiled: Store, tmp_path: Path, path: str, edit) -> None:
    copy = tmp_path / "s.zarr"
    shutil.copytree(tiled.path, copy)
    _set(copy, path, edit)
    # The places of windows are compared when their frames are.
    named = "tiles/frame_number" if path in ("tiles/origin_xy", "tiles/scale_xy") else path
    found = [problem.what for problem in verify_store(open_store(copy)) if problem.where == named]
    assert len(found) == 1
    assert "holds values that no build writes" in found[0]
    with pytest.raises(StoreError, match=f"{named}: holds values that no build writes"):
        Store(copy, check_files=False).column(named)


def test_verify_compares_tracks_with_pixels_and_frames_with_the_manifest(tiled: Store, tmp_path: Path) -> None:
    copy = tmp_path / "s.zarr"
    shutil.copytree(tiled.path, copy)
    for name in ("track", "object_id", "roi_component", "source_id"):
        _set(copy, f"objects/{name}", lambda values: np.where(values == 7, 9, values))
    whats = {problem.what for problem in verify_store(open_store(copy))}
    assert "object 9 has track 9, but its pixels have another value" in whats
    metadata = json.loads((copy / "zarr.json").read_text())
    first: dict[str, Any] = metadata["attributes"]["bcss"]["sources"][0]
    first["frame_number"] = 1
    (copy / "zarr.json").write_text(json.dumps(metadata))
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    assert ("tile 0", "is frame 0 of a, but the manifest has a_00000 elsewhere") in problems


def test_verify_finds_a_class_that_changes_and_an_unlabeled_frame_that_counts(tiled: Store, tmp_path: Path) -> None:
    copy = tmp_path / "s.zarr"
    shutil.copytree(tiled.path, copy)
    _set(copy, "objects/class_id", lambda values: values)
    metadata = json.loads((copy / "zarr.json").read_text())
    classes = metadata["attributes"]["bcss"]["classes"]
    classes.append({**classes[0], "code": 2, "name": "other"})
    sources = metadata["attributes"]["bcss"]["sources"]
    next(source for source in sources if source["frame_id"] == "cell_00001")["mask"] = "masks/cell/00000.png"
    (copy / "zarr.json").write_text(json.dumps(metadata))
    _set(copy, "objects/class_id", _edited(-1, 2))
    problems = [(problem.where, problem.what) for problem in verify_store(open_store(copy))]
    last = int(tiled.column("objects/track")[-1])
    assert ("objects/class_id", f"gives the instance {last} of d both 1 and 2") in problems
    unlabeled = tiled.sequence("cell")[1].tiles[0]
    named = f"tile {unlabeled} (cell_00001 at 0, 0)"
    assert (named, "its ignored pixels do not follow from its labels") in problems
