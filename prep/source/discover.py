"""Find the pairs of image and mask in a source folder, and read patient and institution from their names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prep.source.side_file import check_joined, with_stems
from schemas.errors import SourceError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".tif", ".tiff")

# TCGA-<tissue source site>-<participant>-..., the barcode that BCSS file names start with.
_TCGA_BARCODE = re.compile(r"(?P<patient>TCGA-(?P<institution>[0-9A-Z]{2})-[0-9A-Z]{4})(?![0-9A-Z])", re.IGNORECASE)

_MPP = re.compile(r"MPP-(?P<um>\d+(\.\d+)?)")


@dataclass(frozen=True)
class RoiSource:
    """The files of one ROI.

    Attributes:
        frame_id: Stem of both files.
        image_path: The RGB image.
        mask_path: The mask.
        patient: The given name; otherwise `TCGA-XX-XXXX` if the file's name begins with a TCGA barcode, or the stem.
        institution: The tissue source site of the barcode; empty without one.
        mpp_um: Micrometers a pixel, if the name tells it as in `MPP-0.2500`; otherwise None.
    """

    frame_id: str
    image_path: Path
    mask_path: Path
    patient: str
    institution: str
    mpp_um: float | None = None


def has_tcga_barcode(stem: str) -> bool:
    """Return whether a file's name begins with a barcode of TCGA, as those of BCSS do."""
    return _TCGA_BARCODE.match(stem) is not None


def find_pairs(
    source_dir: Path, images: str = "images", masks: str = "masks", patients: Mapping[str, str] | None = None
) -> list[RoiSource]:
    """Pair images with masks by file stem, sorted by stem.

    Args:
        source_dir: The data set's folder.
        images: Name of the folder of images in it.
        masks: Name of the folder of masks in it.
        patients: The patient of each ROI by its stem, or by its file name; None reads them from the names.

    Raises:
        SourceError: A folder is absent, empty or outside the data set's folder, a file has no partner, or two files
            share a stem.
        ConfigError: `patients` lacks a ROI.
    """
    if not source_dir.is_dir():
        remedy = f"name the folder that holds {images}/ and {masks}/; `bcss-prep sample` makes one to try"
        raise SourceError(source_dir, "is not a folder", remedy)
    for folder in (source_dir / images, source_dir / masks):
        # The manifest names files by their path in the source folder.
        if not folder.is_relative_to(source_dir):
            raise SourceError(folder, f"is not in {source_dir}", "name folders in it with --images and --masks")
    image_paths = _by_stem(source_dir / images, IMAGE_SUFFIXES)
    mask_paths = _by_stem(source_dir / masks, MASK_SUFFIXES)
    for stem in sorted(image_paths.keys() ^ mask_paths.keys()):
        if stem in image_paths:
            raise SourceError(
                image_paths[stem], f"has no mask {source_dir / masks / stem}.png", "add the mask or move the image away"
            )
        raise SourceError(
            mask_paths[stem], f"has no image {source_dir / images / stem}.png", "add the image or move the mask away"
        )
    known: dict[str, str] = {}
    if patients is not None:
        known = with_stems(patients, image_paths)
        check_joined("--patients", known, sorted(image_paths))
    rois = [_describe(stem, image_paths[stem], mask_paths[stem], known.get(stem)) for stem in sorted(image_paths)]
    unknown = [roi.frame_id for roi in rois if not roi.institution and roi.frame_id not in known]
    if len(unknown) > 1:
        logger.warning(
            "%d ROIs, such as %s, have no TCGA barcode, so each counts as a patient of its own; if some share a "
            "patient, give --patients, or that patient may be in two splits",
            len(unknown),
            unknown[0],
        )
    return rois


def _describe(stem: str, image_path: Path, mask_path: Path, patient: str | None) -> RoiSource:
    barcode = _TCGA_BARCODE.match(stem)
    of_name, institution = (barcode["patient"].upper(), barcode["institution"].upper()) if barcode else (stem, "")
    mpp = _MPP.search(stem)
    # A resolution of 0 means an unknown one.
    mpp_um = float(mpp["um"]) or None if mpp else None
    return RoiSource(stem, image_path, mask_path, patient or of_name, institution, mpp_um)


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise SourceError(folder, "is not a folder", "name the folders with --images and --masks")
    paths = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    _say_skipped(folder, suffixes)
    if not paths:
        raise SourceError(folder, f"contains no {', '.join(suffixes)} file", "put the ROIs there")
    found: dict[str, Path] = {}
    for path in paths:
        if not _is_text(f"{folder.name}/{path.name}"):
            raise SourceError(path, "has a name that is not UTF-8, and the store's names are", "rename it")
        if path.stem in found:
            raise SourceError(path, f"has the same stem as {found[path.stem].name}", "rename one of the two")
        found[path.stem] = path
    return found


def _say_skipped(folder: Path, suffixes: tuple[str, ...]) -> None:
    skipped = sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() not in suffixes and not path.name.startswith(".")
    )
    if skipped:
        logger.warning(
            "%s: %d entries are not %s files and are left out, such as %s",
            folder,
            len(skipped),
            ", ".join(suffixes),
            skipped[0],
        )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        # Python represents bytes that the file system's encoding cannot decode as lone surrogates.
        return False
    return True
