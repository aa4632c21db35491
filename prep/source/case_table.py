"""Read a table of cases: a CSV file that names an image and a mask in each row, in any folder.

Columns: `image` and `mask`; and optionally `frame_id`, `patient`, `split`, `mpp_um`, `institution` and `class_mask`.
With the column `sequence`, each row is a frame of a sequence, whose number is in the column `frame` or ends the name of
the image; a frame without labels has no mask. Paths are relative to the table.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path

from prep.source.discover import NO_FRAME, DataSet, RoiSource, of_barcode, stated_mpp, warn_of_patients
from prep.source.folders import DEFAULT_FOLDERS, Folders
from prep.source.sequences import frame_number, in_order, wrong_frames
from schemas.errors import BcssError, ConfigError, SourceError, joined
from schemas.manifest import SPLITS, Split
from schemas.text_file import read_table

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv")
"""File extensions of a table."""

_COLUMNS = (
    *("image", "mask", "frame_id", "patient", "split", "mpp_um", "institution", "class_mask"),
    *("sequence", "frame"),
)
_REMEDY = "give a CSV with the columns image,mask and optionally " + ",".join(_COLUMNS[2:])
_SPLITS: dict[str, Split] = {split: split for split in SPLITS}


def is_case_table(source: Path) -> bool:
    """Return whether a source is a table of cases instead of a folder."""
    return source.suffix.lower() in SUFFIXES and not source.is_dir()


def read_case_table(path: Path, folders: Folders = DEFAULT_FOLDERS) -> DataSet:
    """Read the ROIs of a table, sorted by name, or the frames of its sequences, sorted by sequence and number.

    The name of a ROI is its `frame_id`, or else the stem of its image, or its folder and stem if stems repeat. The name
    of a frame is its `frame_id`, or else its sequence and the stem of its image.

    Args:
        path: The table.
        folders: Whether the table must have sequences, and whether a frame may lack a mask.

    Raises:
        ConfigError: The table cannot be read, or lacks a column.
        SourceError: A row cannot be used. All problems are in one error.
    """
    lines = read_table(path, _REMEDY)
    rows = [row for _, row in lines]
    missing = [column for column in ("image", "mask") if not rows or column not in rows[0]]
    if missing:
        what = f"lacks the column {missing[0]}" if rows else "has no row"
        raise ConfigError(path, what, _REMEDY)
    has_sequences = "sequence" in rows[0]
    if folders.sequences and not has_sequences:
        raise ConfigError(path, "lacks the column sequence", "name the sequence of each row, or leave out --sequences")
    needed = ("image",) if has_sequences and folders.unpaired is None else ("image", "mask")
    known = _COLUMNS if has_sequences else _COLUMNS[:-2]
    unknown = [column for column in rows[0] if column not in known]
    if unknown:
        logger.warning("%s: unknown columns are left out: %s", path, ", ".join(unknown))
    stems = Counter(Path(row["image"]).stem for row in rows)
    problems: list[BcssError] = []
    rois: list[RoiSource] = []
    for number, row in lines:
        wrong = [
            SourceError(f"{path} line {number}", what, remedy)
            for what, remedy in _wrong_cells(path.parent, row, needed)
        ]
        problems += wrong
        if not wrong:
            rois.append(_roi(path.parent, row, is_alone=stems[Path(row["image"]).stem] == 1))
    problems += _wrong_together(path, rois)
    if has_sequences and not problems:
        problems += wrong_frames(rois)
    if problems:
        raise joined(path, problems)
    if has_sequences:
        return DataSet(path.parent, in_order(rois))
    warn_of_patients([roi.frame_id for roi in rois if roi.patient == roi.frame_id and not roi.institution])
    return DataSet(path.parent, sorted(rois, key=lambda roi: roi.frame_id))


def _wrong_cells(folder: Path, row: dict[str, str], needed: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return what is wrong with a row, and the remedy for each problem.

    Args:
        folder: The folder that paths are relative to.
        row: The cells by column.
        needed: The columns of files that must not be empty.
    """
    wrong: list[tuple[str, str]] = []
    for column in ("image", "mask", "class_mask"):
        name = row.get(column, "")
        if not name and column in needed:
            wrong.append((f"has no {column}", "fill the cell, or remove the row"))
        elif name and not (folder / name).is_file():
            wrong.append((f"names the {column} {name}, which does not exist", f"give its path from {folder}"))
    if row.get("split") and row["split"] not in _SPLITS:
        wrong.append((f"has split {row['split']!r}", f"use one of {', '.join(SPLITS)}"))
    if row.get("mpp_um") and _mpp(row["mpp_um"]) is None:
        wrong.append((f"has mpp_um {row['mpp_um']!r}", "give micrometers per pixel, such as 0.25"))
    frame_id = row.get("frame_id", "")
    if frame_id in (".", "..") or "/" in frame_id or "\0" in frame_id:
        wrong.append((f"has frame_id {frame_id!r}", "give a name without a slash"))
    return wrong + _wrong_frame_cells(row) if "sequence" in row else wrong


def _wrong_frame_cells(row: dict[str, str]) -> list[tuple[str, str]]:
    """Return what is wrong with the cells that place a frame in its sequence."""
    wrong: list[tuple[str, str]] = []
    sequence, frame = row["sequence"], row.get("frame", "")
    if sequence in ("", ".", "..") or "/" in sequence or "\0" in sequence:
        wrong.append((f"has sequence {sequence!r}", "give a name without a slash"))
    if frame and _frame_of(row) is None:
        wrong.append((f"has frame {frame!r}", "give a whole number from 0"))
    elif _frame_of(row) is None:
        wrong.append((f"has no frame, and {row['image']} does not end in a number", "fill the column frame"))
    if row.get("class_mask") and not row["mask"]:
        wrong.append(("has a class_mask without a mask", "fill both, or none"))
    return wrong


def _frame_of(row: dict[str, str]) -> int | None:
    """Return the frame number of a row: its cell, or else the digits that end the name of the image."""
    cell = row.get("frame", "")
    if cell and not (cell.isascii() and cell.isdigit()):
        return None
    return frame_number(cell or Path(row["image"]).stem)


def _mpp(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _roi(folder: Path, row: dict[str, str], *, is_alone: bool) -> RoiSource:
    image = Path(row["image"])
    sequence, frame = row.get("sequence", ""), _frame_of(row) if row.get("sequence") else None
    stem = image.stem if is_alone else f"{image.parent.name}_{image.stem}".lstrip("_")
    name = row.get("frame_id") or (f"{sequence}_{image.stem}" if sequence else stem)
    patient, institution = of_barcode(sequence or name)
    return RoiSource(
        frame_id=name,
        image_path=folder / row["image"],
        mask_path=folder / row["mask"] if row["mask"] else None,
        patient=row.get("patient") or patient or sequence or name,
        institution=row.get("institution") or institution,
        mpp_um=_mpp(row.get("mpp_um", "")) or stated_mpp(folder / image),
        class_mask_path=folder / row["class_mask"] if row.get("class_mask") else None,
        split=_SPLITS.get(row.get("split", "")),
        sequence=sequence,
        frame_number=NO_FRAME if frame is None else frame,
    )


def _wrong_together(path: Path, rois: list[RoiSource]) -> list[BcssError]:
    """Return the problems of the rows as a whole: repeated names, conflicting splits, and partly filled columns."""
    problems: list[BcssError] = []
    names = Counter(roi.frame_id for roi in rois)
    problems += [
        SourceError(path, f"gives {count} ROIs the name {name}", "give each its own frame_id")
        for name, count in names.items()
        if count > 1
    ]
    splits: dict[str, set[Split | None]] = {}
    for roi in rois:
        splits.setdefault(roi.patient, set()).add(roi.split)
    has_splits = any(roi.split for roi in rois)
    for patient, found in splits.items():
        given = sorted(filter(None, found))
        if len(given) > 1:
            problems.append(SourceError(path, f"puts patient {patient} into {' and '.join(given)}", "choose one"))
        elif has_splits and None in found:
            problems.append(SourceError(path, f"has a row of patient {patient} without a split", "fill all, or none"))
    if len({roi.class_mask_path is None for roi in rois if roi.mask_path}) > 1:
        problems.append(SourceError(path, "has rows with a class_mask and rows without", "fill all, or none"))
    return problems
