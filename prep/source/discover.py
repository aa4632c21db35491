"""Find the ROIs of a data set, and read patient, institution and resolution from their names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prep.source.folders import DEFAULT_FOLDERS, Folders, Pair, find_pairs
from prep.source.side_file import check_joined, with_stems
from schemas.errors import SourceError, joined
from schemas.manifest import Split
from schemas.picture.resolution import MAX_MPP_UM, picture_mpp

logger = logging.getLogger(__name__)

# BCSS file names start with a barcode: TCGA-<tissue source site>-<participant>-...
_TCGA_BARCODE = re.compile(r"(?P<patient>TCGA-(?P<institution>[0-9A-Z]{2})-[0-9A-Z]{4})(?![0-9A-Z])", re.IGNORECASE)


_SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders that are splits, in small letters."""

NO_FRAME = -1
"""The frame number of a ROI that belongs to no sequence."""


@dataclass(frozen=True)
class RoiSource:
    """The files of one ROI, or of one frame of a sequence.

    Attributes:
        frame_id: Name of the ROI: the stem of both files, or the name that the table of cases gives. For a frame, the
            name of its sequence and the stem.
        image_path: The RGB image.
        mask_path: The mask; None for a frame without labels.
        patient: The patient that the user gives; otherwise `TCGA-XX-XXXX` if the name begins with a TCGA barcode, else
            the patient's folder, else the ROI's name.
        institution: The tissue source site of the barcode; empty if there is no barcode.
        mpp_um: Micrometers per pixel, if the name gives it as in `MPP-0.2500`, or the tags of a TIFF; otherwise None.
        class_mask_path: The mask of classes that accompanies a mask of instances, if there is one.
        split: The split that a table of cases gives, or a folder such as `train`; None without either.
        sequence: Name of the frame's sequence; empty for a ROI.
        frame_number: Number of the frame in its sequence; `NO_FRAME` for a ROI.
    """

    frame_id: str
    image_path: Path
    mask_path: Path | None
    patient: str
    institution: str
    mpp_um: float | None = None
    class_mask_path: Path | None = None
    split: Split | None = None
    sequence: str = ""
    frame_number: int = NO_FRAME

    @property
    def labels_path(self) -> Path:
        """The file that messages name: the mask, or the image of a frame without labels."""
        return self.mask_path or self.image_path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of all of its files."""
        return tuple(path for path in (self.image_path, self.mask_path, self.class_mask_path) if path is not None)


@dataclass(frozen=True)
class DataSet:
    """The ROIs of a data set.

    Attributes:
        root: The folder that the manifest's paths are relative to.
        rois: The ROIs, sorted by name; frames are sorted by sequence and number.
    """

    root: Path
    rois: list[RoiSource]

    @property
    def has_sequences(self) -> bool:
        """Whether the ROIs are frames of sequences."""
        return any(roi.sequence for roi in self.rois)


def has_tcga_barcode(stem: str) -> bool:
    """Return whether a file name begins with a TCGA barcode, as BCSS file names do."""
    return _TCGA_BARCODE.match(stem) is not None


def find_rois(
    source_dir: Path, folders: Folders = DEFAULT_FOLDERS, patients: Mapping[str, str] | None = None
) -> DataSet:
    """Find the ROIs in a folder, sorted by name.

    Args:
        source_dir: The data set's folder.
        folders: Where its files lie, and how their names end.
        patients: The patient of each ROI, by the ROI's name or file name; None reads patients from names and folders.

    Raises:
        SourceError: A folder is absent, empty or outside the data set's folder, a file has no partner, or two ROIs have
            the same name. One error lists all problems.
        ConfigError: `patients` lacks a ROI.
    """
    pairs, splits = _in_split_folders(find_pairs(source_dir, folders))
    named = _named(source_dir, pairs)
    split_of: dict[Path, Split | None] = {pair.image: split for pair, split in zip(pairs, splits, strict=True)}
    known: dict[str, str] = {}
    if patients is not None:
        known = with_stems(patients, named, (folders.image_suffix, folders.mask_suffix))
        check_joined("--patients", known, sorted(named))
    rois = [_describe(name, pair, known.get(name), split_of[pair.image]) for name, pair in sorted(named.items())]
    unknown = [
        roi.frame_id for roi in rois if not (roi.institution or roi.frame_id in known or named[roi.frame_id].patient)
    ]
    warn_of_patients(unknown)
    nested = sorted({roi.patient for roi in rois if "/" in roi.patient and roi.frame_id not in known})
    if nested:
        logger.warning(
            "%d nested folders, such as %s, each count as a patient; if some belong to one patient, give --patients, "
            "or that patient may be in two splits",
            len(nested),
            nested[0],
        )
    return DataSet(source_dir, rois)


def warn_of_patients(unknown: list[str]) -> None:
    """Warn of ROIs whose patient is not known.

    Args:
        unknown: Their names.
    """
    if len(unknown) > 1:
        logger.warning(
            "%d ROIs, such as %s, have no TCGA barcode, so each counts as a patient of its own; if some share a "
            "patient, give --patients, or that patient may be in two splits",
            len(unknown),
            unknown[0],
        )


def size_mismatch(mask: Path, image: Path, mask_size: tuple[int, int], image_size: tuple[int, int]) -> SourceError:
    """Make the error for an image and a mask of different sizes, each width x height in pixels."""
    return SourceError(
        mask,
        f"is {mask_size[0]} x {mask_size[1]} px, but its image {image.name} is {image_size[0]} x {image_size[1]} px",
        "export both again from the same region",
    )


def of_barcode(name: str) -> tuple[str, str]:
    """Return the patient and institution from a name's TCGA barcode; both are empty if the name has none."""
    barcode = _TCGA_BARCODE.match(name)
    return (barcode["patient"].upper(), barcode["institution"].upper()) if barcode else ("", "")


def _named(source_dir: Path, pairs: list[Pair]) -> dict[str, Pair]:
    """Name each pair by its stem, or by its folder and stem if stems repeat."""
    count = Counter(pair.stem for pair in pairs)
    named: dict[str, Pair] = {}
    problems: list[SourceError] = []
    for pair in pairs:
        name = pair.stem if count[pair.stem] == 1 else f"{pair.folder.replace('/', '_')}_{pair.stem}".lstrip("_")
        if name in named:
            what = f"has the same name as {named[name].image}, which is {name}"
            problems.append(SourceError(pair.image, what, "rename one of the two"))
        named[name] = pair
    if problems:
        raise joined(source_dir, problems)
    return named


def stated_mpp(image: Path) -> float | None:
    """Return the resolution that the name or the tags of an image state; None for a file that cannot be read."""
    try:
        found = picture_mpp(image)
    except SourceError:
        # The comparison of headers, which comes next, lists all files that cannot be read.
        return None
    return found if found is not None and found <= MAX_MPP_UM else None


def _in_split_folders(pairs: list[Pair]) -> tuple[list[Pair], list[Split | None]]:
    """Return the pairs without folders that are splits, and the split of each; None without such folders.

    The folders are splits if there are several and all have names such as `train`, `val` and `test`.
    """
    tops = [pair.folder.partition("/")[0].lower() for pair in pairs]
    if len({_SPLIT_FOLDERS.get(top) for top in tops}) < 2 or not set(tops) <= _SPLIT_FOLDERS.keys():
        return pairs, [None] * len(pairs)
    logger.info("the folders %s are the splits", ", ".join(sorted(set(tops))))
    below = [replace(pair, patient=pair.folder.split("/")[1] if "/" in pair.folder else "") for pair in pairs]
    return below, [_SPLIT_FOLDERS[top] for top in tops]


def _describe(name: str, pair: Pair, given: str | None, split: Split | None) -> RoiSource:
    patient, institution = of_barcode(pair.stem)
    if not patient and pair.patient:
        found = [of_barcode(folder) for folder in pair.patient.split("/")]
        patient, institution = next((barcode for barcode in found if barcode[0]), (pair.patient, ""))
    mpp_um = stated_mpp(pair.image)
    return RoiSource(name, pair.image, pair.mask, given or patient or name, institution, mpp_um, pair.class_mask, split)
