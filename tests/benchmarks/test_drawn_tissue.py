"""Tissue that is drawn on masks: pieces, codes, and the ROIs on whose masks nothing is drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.drawn_tissue import OTHER, draw_on_masks
from benchmarks.real_halves import add_drawn, cut
from prep.sample.tissue_class import EXCLUDE, LYMPHOCYTES, STROMA, TUMOR

PLASMA_CELLS = 10


def _write_mask(folder: Path, roi: str) -> Path:
    """Write a mask of 1200 x 640 px: tumor and plasma cells beside each other, and a lower part outside the ROI."""
    mask = np.zeros((640, 1200), np.uint8)
    mask[:480, :600], mask[:480, 600:] = TUMOR, PLASMA_CELLS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"TCGA-A2-{roi}-DX1_xmin1_ymin1_MPP-0.2500.png"
    Image.fromarray(mask).save(path)
    return path


def _folder(path: Path) -> Path:
    for kind in ("images", "masks"):
        (path / kind).mkdir(parents=True)
    return path


def _codes(path: Path) -> set[int]:
    return set(np.unique(np.asarray(Image.open(path))).tolist())


def test_each_mask_is_drawn_with_its_codes_and_then_with_two(tmp_path: Path) -> None:
    out = _folder(tmp_path / "out")
    patients = draw_on_masks([_write_mask(tmp_path, "A0AA")], out, times=2)
    assert set(patients.values()) == {"drawn-A0AA"}
    assert len(patients) == 4
    codes: dict[str, set[int]] = {"0": set(), "1": set()}
    for name in patients:
        image = np.asarray(Image.open(out / "images" / f"{name}.png"))
        assert image.shape == (512, 512, 3)
        codes[name.split("-")[2]] |= _codes(out / "masks" / f"{name}.png")
    assert codes["0"] - {EXCLUDE} == {TUMOR, LYMPHOCYTES}
    assert codes["1"] - {EXCLUDE} == {TUMOR, OTHER}


def test_lymphocytes_are_darker_than_what_is_left_out(tmp_path: Path) -> None:
    out = _folder(tmp_path / "out")
    for name in draw_on_masks([_write_mask(tmp_path, "A0AA")], out, times=1):
        red = np.asarray(Image.open(out / "images" / f"{name}.png"))[..., 0].astype(float)
        labels = np.asarray(Image.open(out / "masks" / f"{name}.png"))
        if {LYMPHOCYTES, EXCLUDE} <= set(np.unique(labels).tolist()):
            assert red[labels == LYMPHOCYTES].mean() < red[labels == EXCLUDE].mean() - 20
            return
    raise AssertionError("no piece holds lymphocytes and pixels that are left out")


def test_nothing_is_drawn_on_masks_of_scored_rois(tmp_path: Path) -> None:
    for roi in ("A0AA", "A0D2", "A1G6"):
        _write_mask(tmp_path / "bcss" / "masks", roi)
    source = _folder(tmp_path / "train")
    half = np.full((64, 64), STROMA, np.uint8)
    half[:32] = TUMOR
    Image.fromarray(half).save(source / "masks" / "train-A0D2.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(source / "images" / "train-A0D2.png")
    for _ in range(2):  # A second call continues a run that was stopped.
        add_drawn(tmp_path, source)
        lines = (source / "patients.csv").read_text(encoding="utf-8").splitlines()
        rows = dict(line.split(",") for line in lines[1:])
        assert len(rows) == len(lines) - 1
        assert set(rows.values()) == {"drawn-A0AA", "train-A0D2"}
        assert set(rows) == {path.stem for path in (source / "masks").glob("*.png")}
        assert {path.name for path in (source / "images").glob("*.png")} == {
            path.name for path in (source / "masks").glob("*.png")
        }
    assert _codes(source / "masks" / "train-A0D2-tumor.png") == {TUMOR, OTHER}


def test_pieces_outside_of_the_roi_are_left_out(tmp_path: Path) -> None:
    mask = np.zeros((640, 640), np.uint8)
    mask[:128] = TUMOR
    path = tmp_path / "TCGA-A2-A0AB-DX1_xmin1_ymin1_MPP-0.2500.png"
    Image.fromarray(mask).save(path)
    assert draw_on_masks([path], _folder(tmp_path / "out"), times=1) == {}


def test_an_unseen_roi_is_scored_and_the_other_one_trained_on_as_a_whole(tmp_path: Path) -> None:
    for folder, roi, value in (("bcss", "A0D2", 10), ("bcss_tumor", "A1G6", 20)):
        for kind in ("images", "masks"):
            (tmp_path / folder / kind).mkdir(parents=True)
            columns = np.tile(np.arange(6, dtype=np.uint8), (4, 1)) + value
            Image.fromarray(columns).save(tmp_path / folder / kind / f"TCGA-A2-{roi}.png")

    def written(unseen: str | None) -> dict[str, list[int]]:
        out = tmp_path / f"out-{unseen}"
        cut(tmp_path, out, unseen)
        return {path.stem: np.asarray(Image.open(path))[0].tolist() for path in out.glob("*/images/*.png")}

    left, right = [10, 11, 12], [13, 14, 15]
    other_left, other_right = [20, 21, 22], [23, 24, 25]
    halves = {"train-A0D2": left, "held-A0D2": right, "train-A1G6": other_left, "held-A1G6": other_right}
    assert written(None) == halves
    assert written("A0D2") == {"train-A1G6": other_left + other_right, "held-A0D2": right}
    assert written("A1G6") == {"train-A0D2": left + right, "held-A1G6": other_right}
