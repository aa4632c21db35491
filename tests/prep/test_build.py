import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import zarr
from PIL import Image

from prep.build import BuildOptions, BuildProgress, build_store
from prep.config import BuildConfig
from prep.source.class_map import ClassEntry
from prep.source.discover import RoiSource
from prep.verify import verify_store
from schemas.errors import ConfigError, SourceError, StoreError
from schemas.manifest import Split
from schemas.store.store import Store, open_store

SMALL = BuildConfig(size_px=128)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_write_the_same_bytes_as_one(sample_source: Path, store: Store, tmp_path: Path) -> None:
    build_store(sample_source, tmp_path / "two.zarr", SMALL, BuildOptions(workers=2))
    one, two = _files(Path(store.path)), _files(tmp_path / "two.zarr")
    assert one == two
    assert any(name.startswith("images/c/") for name in one)


def test_manifest_lists_the_sources(store: Store, sample_source: Path) -> None:
    manifest = store.manifest
    assert len(manifest.sources) == 6
    assert sum(source.tiles for source in manifest.sources) == manifest.complete.tiles == len(store)
    assert (sample_source / manifest.sources[0].image).exists()
    assert [info.name for info in manifest.classes][:2] == ["tumor", "stroma"]
    assert manifest.config["size_px"] == 128
    source = manifest.sources[0]
    assert source.mask is not None
    with Image.open(sample_source / source.mask) as mask:
        assert bytes.fromhex(source.palette) == bytes(mask.getpalette("RGB") or ())
    assert source.mpp_um == 0.25


def test_store_without_negative_points_refuses_to_give_them(write_roi, tmp_path: Path) -> None:
    source = write_roi("TCGA-A1-A001", np.tile(np.repeat(np.array([1, 2], np.uint8), 32), (64, 1)))
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64, negative_points=0))
    store = open_store(tmp_path / "s.zarr")
    assert verify_store(store) == []
    assert store.prompts(0, "multi_point")[1]["point_labels"].tolist() == [1] * 8
    with pytest.raises(StoreError, match="has no negative points; build it with"):
        store.prompts(0, "multi_point", negatives=True)


def test_progress_counts_rois(sample_source: Path, tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    build_store(sample_source, tmp_path / "s.zarr", SMALL, BuildOptions(on_progress=seen.append))
    assert [step.done for step in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].tiles == 54


def test_pair_of_different_size_is_refused_before_anything_is_decoded(write_roi, tmp_path: Path) -> None:
    labels = np.full((40, 40), 1, np.uint8)
    write_roi("a", labels)
    source = write_roi("b", labels, image=np.zeros((40, 39, 3), np.uint8))
    seen: list[BuildProgress] = []
    with pytest.raises(SourceError, match=r"b.png: is 40 x 40 px, but its image b.png is 39 x 40 px"):
        build_store(source, tmp_path / "s.zarr", SMALL, BuildOptions(on_progress=seen.append))
    assert seen == []


def test_the_same_build_again_changes_nothing(store: Store, sample_source: Path, caplog) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(store.path).rglob("*")}
    with caplog.at_level(logging.INFO):
        assert build_store(sample_source, store.path, SMALL) == store.manifest
    assert {path: path.stat().st_mtime_ns for path in Path(store.path).rglob("*")} == before
    assert "is up to date" in caplog.text


def test_other_settings_or_sources_replace_a_store_only_with_overwrite(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    build_store(source, out, SMALL)
    before = _files(out)
    other = BuildConfig(size_px=64)
    with pytest.raises(
        StoreError, match=r"s.zarr: was built from other settings \(size_px was 128 and is now 64; .*--overwrite"
    ):
        build_store(source, out, other)
    write_roi("a", np.full((40, 40), 2, np.uint8))
    with pytest.raises(StoreError, match=r"was built from different content of .*masks.a.png"):
        build_store(source, out, SMALL)
    assert _files(out) == before
    build_store(source, out, other, BuildOptions(overwrite=True))
    assert open_store(out).manifest.tile_size_px == 64
    assert open_store(out)[0].class_ids.tolist() == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "source"]


@pytest.mark.parametrize("name", ["images/c/0/0/0/0", "tiles/patient/c/0", "labels/zarr.json"])
@pytest.mark.parametrize("cut", [False, True], ids=["missing", "cut"])
def test_damaged_store_is_not_up_to_date(write_roi, tmp_path: Path, name: str, cut: bool) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    build_store(source, out, SMALL)
    before = _files(out)
    if cut:
        (out / name).write_bytes(before[name][:-1])
    else:
        (out / name).unlink()
    what = f"has {len(before[name]) - 1} bytes, not {len(before[name])}" if cut else "is missing"
    message = f"{out}: is damaged ({name} {what}); give --overwrite to build it again"
    with pytest.raises(StoreError, match=f"^{re.escape(message)}$"):
        build_store(source, out, SMALL)
    build_store(source, out, SMALL, BuildOptions(overwrite=True))
    assert _files(out) == before


def test_store_with_other_patients_is_not_up_to_date(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, tmp_path / "s.zarr", SMALL)
    # As long as the earlier name, so that the size of the file does not change.
    cast("zarr.Array", zarr.open_group(tmp_path / "s.zarr", mode="r+")["tiles/patient"])[:] = "b"
    with pytest.raises(StoreError, match=r"was built from another patient of a .it was b and would be a"):
        build_store(source, tmp_path / "s.zarr", SMALL)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p2,X,0.5", "another patient of a (it was p1 and would be p2)"),
        ("p1,Y,0.5", "another institution of a (it was X and would be Y)"),
        ("p1,X,0.25", "another resolution of a (it was 0.5 um per pixel and would be 0.25 um per pixel)"),
        ("p1,X,", "another resolution of a (it was 0.5 um per pixel and would be unknown)"),
    ],
)
def test_store_is_not_up_to_date_after_its_table_was_corrected(
    write_roi, tmp_path: Path, row: str, message: str
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    table, out = source / "cases.csv", tmp_path / "s.zarr"

    def write(values: str) -> None:
        head = "image,mask,patient,institution,mpp_um,split"
        table.write_text(f"{head}\nimages/a.png,masks/a.png,{values},train\n", encoding="utf-8")

    write("p1,X,0.5")
    build_store(table, out, SMALL)
    write(row)
    with pytest.raises(StoreError, match=re.escape(f"was built from {message}")):
        build_store(table, out, SMALL)


def test_prepared_rois_are_not_reused_after_their_patient_was_corrected(write_roi, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        source = write_roi(name, np.full((40, 40), 1, np.uint8))
    whole = (source / "images" / "c.png").read_bytes()
    (source / "images" / "c.png").write_bytes(whole[:-20])
    with pytest.raises(SourceError):
        build_store(source, tmp_path / "s.zarr", SMALL, patients={"a": "p1", "b": "p1", "c": "p2"})
    assert len(list(tmp_path.glob("*/rois/*/staged.json"))) == 2
    (source / "images" / "c.png").write_bytes(whole)
    # The splits of the two patients stay as they were.
    again = BuildOptions(overwrite=True)
    build_store(source, tmp_path / "s.zarr", SMALL, again, patients={"a": "p1", "b": "p2", "c": "p2"})
    assert open_store(tmp_path / "s.zarr").column("tiles/patient").tolist() == ["p1", "p2", "p2"]


def test_an_ignored_code_cannot_be_merged_into_one_that_counts(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.repeat(np.array([1, 2, 7, 15], np.uint8), 16)[:, None].repeat(64, 1))
    # The settings themselves are valid, because `verify` reads those of older stores.
    merged = BuildConfig(size_px=64, class_map=(ClassEntry(code=7, into=2), ClassEntry(code=15, into=2)))
    with pytest.raises(ConfigError, match=r"--ignore: names 7, which the class map merges into 2; give --ignore 0, or"):
        build_store(source, tmp_path / "s.zarr", merged)
    build_store(source, tmp_path / "s.zarr", merged.model_copy(update={"ignore": (0,)}))
    assert not open_store(tmp_path / "s.zarr")[0].ignore.any()
    inside = BuildConfig(size_px=64, class_map=(ClassEntry(code=7, into=15),))
    build_store(source, tmp_path / "i.zarr", inside)
    assert open_store(tmp_path / "i.zarr")[0].ignore.sum() == 32 * 64


def test_message_names_the_roi_that_is_only_in_the_folder(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, tmp_path / "s.zarr", SMALL)
    write_roi("b", np.full((40, 40), 1, np.uint8))
    with pytest.raises(StoreError, match=r"was built from other ROIs .1 differ; b is only in the folder"):
        build_store(source, tmp_path / "s.zarr", SMALL)


def test_resolution_that_names_do_not_tell_can_be_given(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((256, 256), 1, np.uint8))
    write_roi("b_MPP-0.2500", np.full((256, 256), 1, np.uint8))
    given = BuildConfig(size_px=64, source_mpp_um=0.5)
    build_store(source, tmp_path / "s.zarr", given)
    assert [roi.mpp_um for roi in open_store(tmp_path / "s.zarr").manifest.sources] == [0.5, 0.25]
    # At one micrometer per pixel, the first ROI has half and the second a quarter of its pixels per side.
    resampled = BuildConfig(size_px=64, source_mpp_um=0.5, mpp_um=1.0)
    build_store(source, tmp_path / "r.zarr", resampled)
    assert [roi.tiles for roi in open_store(tmp_path / "r.zarr").manifest.sources] == [4, 1]
    with pytest.raises(StoreError, match=r"source_mpp_um was 0.5 and is now none"):
        build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64))


def test_settings_without_the_resolution_have_the_fingerprint_of_earlier_versions() -> None:
    assert "source_mpp_um" not in BuildConfig().model_dump(mode="json")
    assert BuildConfig(source_mpp_um=0.5).model_dump(mode="json")["source_mpp_um"] == 0.5


SCRIPT = """
from pathlib import Path
from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
build_store(Path({source!r}), {out!r}, BuildConfig(size_px=64), BuildOptions(workers=2))
"""


def test_script_without_a_guard_is_told_so(write_roi, tmp_path: Path) -> None:
    for name in ("a", "b"):
        source = write_roi(name, np.full((64, 64), 1, np.uint8))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(source=str(source), out=str(tmp_path / "s.zarr")))
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    remedy = 'put the script\'s calls below a line `if __name__ == "__main__":`'
    # Two workers write their tracebacks at once, so their lines can be mixed; the parent's line is the last.
    assert f"line 5: calls build_store again while a worker process imports the script; {remedy}" in ran.stderr
    assert ran.stderr.rstrip().endswith(f"ended while they imported this script; {remedy}")
    assert "memory" not in ran.stderr


def test_store_whose_name_is_as_long_as_a_name_can_be_is_built(write_roi, tmp_path: Path) -> None:
    source, out = write_roi("a", np.full((64, 64), 1, np.uint8)), tmp_path / ("s" * 250 + ".zarr")
    build_store(source, out, SMALL)
    build_store(source, out, BuildConfig(size_px=64), BuildOptions(overwrite=True))
    assert open_store(out).manifest.tile_size_px == 64
    assert [path.name for path in tmp_path.iterdir() if path.name != "source"] == [out.name]


def test_store_with_a_foreign_file_is_not_replaced(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    build_store(source, out, SMALL)
    (out / "notes.txt").write_text("seen by Anna")
    with pytest.raises(StoreError, match=r"holds notes.txt, which is not part of a store"):
        build_store(source, out, BuildConfig(size_px=64), BuildOptions(overwrite=True))
    assert (out / "notes.txt").read_text() == "seen by Anna"


def test_overwrite_never_removes_anything_but_a_store(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    precious = tmp_path / "s.zarr" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(StoreError):
        build_store(source, precious.parent, SMALL, BuildOptions(overwrite=True))
    assert precious.read_text() == "years of work"


def _edit_manifest(store: Path, **entries: object) -> None:
    metadata = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["bcss"].update(entries)
    (store / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize("entries", [{"tile_size_px": -8}, {"schema_version": 0}], ids=["damaged", "older"])
def test_unreadable_store_is_replaced_with_overwrite(write_roi, tmp_path: Path, entries) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    build_store(source, out, SMALL)
    _edit_manifest(out, **entries)
    with pytest.raises(StoreError, match=r"damaged manifest|schema version 0.*; choose another --out, or give --overw"):
        build_store(source, out, SMALL)
    (out / "notes.txt").write_text("seen by Anna")
    with pytest.raises(StoreError, match=r"holds notes.txt, which is not part of a store"):
        build_store(source, out, SMALL, BuildOptions(overwrite=True))
    (out / "notes.txt").unlink()
    build_store(source, out, SMALL, BuildOptions(overwrite=True))
    assert len(open_store(out)) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_empty_folder_is_used(write_roi, tmp_path: Path, overwrite: bool) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    out.mkdir()
    build_store(source, out, SMALL, BuildOptions(overwrite=overwrite))
    assert len(open_store(out)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "source"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["file", "folder", "group"])
def test_foreign_content_at_the_destination_stays_and_is_named(
    write_roi, tmp_path: Path, foreign: str, overwrite: bool
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    if foreign == "file":
        out.write_text("years of work")
    elif foreign == "folder":
        (out / "thesis").mkdir(parents=True)
    else:
        zarr.create_group(out, zarr_format=3)
    with pytest.raises(StoreError, match=r"s.zarr: is in the way .*; move it away, or choose another --out"):
        build_store(source, out, SMALL, BuildOptions(overwrite=overwrite))
    assert out.exists()


@pytest.mark.parametrize("out", [".", "./", "..", "/", "", "below/.."])
def test_destination_without_a_name_is_refused(write_roi, tmp_path: Path, monkeypatch, out: str) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    (tmp_path / "empty" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "below")
    for options in (BuildOptions(), BuildOptions(work_dir=tmp_path / "work")):
        with pytest.raises(ConfigError, match=r"--out [./below]+: does not name a store; give it a name"):
            build_store(source, out, SMALL, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "source"]


def test_content_that_appears_at_the_destination_during_a_build_stays(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    options = BuildOptions(on_progress=lambda _: (out / "thesis").mkdir(parents=True))
    with pytest.raises(StoreError, match="is in the way"):
        build_store(source, out, SMALL, options)
    assert (out / "thesis").exists()


def test_failed_build_leaves_no_store_and_continues_once_the_source_is_repaired(write_roi, tmp_path: Path) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", Image.new("RGB", (40, 40)))
    out = tmp_path / "s.zarr"
    with pytest.raises(SourceError, match=r"b.png: is a color image"):
        build_store(source, out, SMALL)
    assert not out.exists()
    with pytest.raises(StoreError):
        open_store(tmp_path / "s.zarr.partial")
    (staged,) = (tmp_path / "s.zarr.partial" / "rois").iterdir()
    columns = staged / "columns.npz"
    before = columns.stat().st_mtime_ns
    write_roi("b", np.full((40, 40), 1, np.uint8))
    seen: list[int] = []
    options = BuildOptions(on_progress=lambda step: seen.append(columns.stat().st_mtime_ns))
    build_store(source, out, SMALL, options)
    assert seen == [before, before]
    assert len(open_store(out)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "source"]


def test_roi_smaller_than_a_tile_is_padded_with_ignored_pixels(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((30, 50), 1, np.uint8))
    build_store(source, tmp_path / "s.zarr", SMALL)
    record = open_store(tmp_path / "s.zarr")[0]
    assert record.segments[0].sum() == 30 * 50
    assert not record.ignore[:30, :50].any()
    assert record.ignore[30:].all()
    assert record.ignore[:, 50:].all()
    assert record.roi_size_xy == (50, 30)


def _all_train(rois: list[RoiSource]) -> dict[str, Split]:
    return {roi.patient: "train" for roi in rois}


def test_roi_without_a_selected_class_is_left_out_and_listed(write_roi, tmp_path: Path, caplog) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", np.full((40, 40), 9, np.uint8))
    build_store(source, tmp_path / "s.zarr", SMALL, splitter=_all_train)
    opened = open_store(tmp_path / "s.zarr")
    assert [record.frame_id for record in opened] == ["a"]
    assert [(entry.frame_id, entry.objects) for entry in opened.manifest.sources] == [("a", 1), ("b", 0)]
    assert "masks/b.png contains no selected class and is left out" in caplog.text


def test_unknown_code_is_refused_unless_all_classes_are_selected(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 77, np.uint8))
    with pytest.raises(SourceError, match="unknown class code 77"):
        build_store(source, tmp_path / "s.zarr", SMALL)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=128, classes="all"))
    (info,) = open_store(tmp_path / "s.zarr").manifest.classes
    assert (info.code, info.name) == (77, "class_77")


def test_sixteen_bit_codes_survive(write_roi, tmp_path: Path) -> None:
    labels = np.full((40, 40), 1000, np.uint16)
    labels[:20] = 65535
    source = write_roi("a", Image.fromarray(labels))
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=40, classes="all", ignore=(65535,)))
    record = open_store(tmp_path / "s.zarr")[0]
    np.testing.assert_array_equal(record.labels, labels)
    assert record.class_ids.tolist() == [1000]
    np.testing.assert_array_equal(record.ignore, labels == 65535)


def test_component_objects_count_apart(write_roi, tmp_path: Path) -> None:
    labels = np.full((64, 64), 2, np.uint8)
    labels[4:16, 4:16] = labels[40:60, 40:60] = 1
    source = write_roi("a", labels)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64, objects="component"))
    opened = open_store(tmp_path / "s.zarr")
    assert opened[0].object_ids.tolist() == [1, 2, 3]
    assert opened[0].class_ids.tolist() == [1, 1, 2]
    assert opened.column("objects/area_px").tolist() == [144, 400, 64 * 64 - 544]
    assert opened.column("objects/touches_edge").tolist() == [False, False, True]


def test_class_in_both_lists_and_wide_stride_are_refused() -> None:
    with pytest.raises(ConfigError, match="names 7, which --ignore"):
        BuildConfig(classes=(1, 7), ignore=(0, 7))
    with pytest.raises(ConfigError, match="leaves pixels out"):
        BuildConfig(size_px=64, stride_px=65)


def test_store_without_a_roi_for_training_is_refused(write_roi, tmp_path: Path) -> None:
    # The only ROI outside the test institutions contains no selected class.
    write_roi("TCGA-A1-0001", np.full((40, 40), 9, np.uint8))
    source = write_roi("TCGA-OL-0002", np.full((40, 40), 1, np.uint8))
    with pytest.raises(SourceError, match=r"TCGA-A1-0001.png: no training ROI contains a selected class \(1 checked"):
        build_store(source, tmp_path / "s.zarr", SMALL)
    assert not (tmp_path / "s.zarr").exists()


def test_tile_with_too_many_objects_to_read_is_refused(write_roi, tmp_path: Path, monkeypatch) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[::4, ::4] = 1
    source = write_roi("a", labels)
    monkeypatch.setattr("prep.write.roi_folder.MAX_SEGMENT_BYTES", 255 * 64 * 64)
    config = BuildConfig(size_px=64, objects="component", min_area_px=1)
    with pytest.raises(SourceError, match=r"a.png: has 256 objects in the tile at 0, 0, more than can be read at once"):
        build_store(source, tmp_path / "s.zarr", config)


def test_roi_without_enough_tissue_is_left_out_with_the_reason(write_roi, tmp_path: Path, caplog) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", np.zeros((40, 40), np.uint8))
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64, min_tissue=0.1), splitter=_all_train)
    assert "masks/b.png has no tile with --min-tissue and is left out" in caplog.text


def test_manifest_lists_the_classes_that_became_objects(write_roi, tmp_path: Path) -> None:
    labels = np.full((40, 40), 1, np.uint8)
    labels[0, 0] = 18
    build_store(write_roi("a", labels), tmp_path / "s.zarr", BuildConfig(size_px=64, min_area_px=2))
    assert [info.code for info in open_store(tmp_path / "s.zarr").manifest.classes] == [1]


def test_empty_splits_are_logged(write_roi, tmp_path: Path, caplog) -> None:
    build_store(write_roi("a", np.full((40, 40), 1, np.uint8)), tmp_path / "s.zarr", SMALL)
    assert [split for split in ("train", "val", "test") if f"the split {split} has no tile;" in caplog.text] == [
        "val",
        "test",
    ]


def test_interrupted_build_says_that_it_continues(write_roi, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in "abcdef":
        write_roi(name, generator.integers(1, 4, (640, 640), np.uint8))
    folders = [str(tmp_path / "source"), "--out", str(tmp_path / "s.zarr")]
    process = subprocess.Popen(
        [sys.executable, "-m", "prep.cli", "build", *folders, "--size", "64", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("s.zarr.partial/rois/*/staged.json")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    last = said.splitlines()[-1]
    assert last == "bcss-prep: interrupted; finished work is kept, and the same command continues from it"
    assert "Traceback" not in said
    assert list(tmp_path.glob("s.zarr.partial/rois/*/staged.json"))
