"""Find the frames of sequences: each folder of images is a sequence, and the number of a frame ends its name.

DAVIS, MOSE and YouTube-VOS have this layout: `images/<sequence>/<frame>` and `masks/<sequence>/<frame>`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

from prep.source.discover import DataSet, RoiSource, of_barcode
from prep.source.folders import Folders, Pair, find_pairs
from prep.source.side_file import check_joined, with_stems
from schemas.errors import BcssError, SourceError, joined
from schemas.file_names import mpp_in_name
from schemas.limits import MAX_FRAME_NUMBER

_LAST_DIGITS = re.compile(r"[0-9]+$")


def frame_number(stem: str) -> int | None:
    """Return the number that ends a file's stem, as 5 in `00005`; None if no digit ends it or it exceeds 31 bits."""
    digits = _LAST_DIGITS.search(stem)
    # The largest number has ten digits; Python refuses to convert thousands of digits.
    text = digits[0].lstrip("0") if digits else ""
    if digits is None or len(text) > len(str(MAX_FRAME_NUMBER)):
        return None
    number = int(text or "0")
    return number if number <= MAX_FRAME_NUMBER else None


def find_sequences(source_dir: Path, folders: Folders, patients: Mapping[str, str] | None = None) -> DataSet:
    """Find the frames in the folders of sequences, sorted by sequence and number.

    Args:
        source_dir: The data set's folder.
        folders: Where its files lie, and whether a frame may lack a mask.
        patients: The patient of each sequence by its name. Unless given, each sequence is a patient, or its name begins
            with a TCGA barcode.

    Raises:
        SourceError: A folder is absent or empty, a frame lies in no sequence or has no number, a mask has no frame, or
            the numbers of a sequence have a gap. One error lists all problems.
        ConfigError: `patients` lacks a sequence.
    """
    pairs = find_pairs(source_dir, folders)
    problems: list[BcssError] = []
    rois: list[RoiSource] = []
    for pair in pairs:
        number = frame_number(pair.stem)
        if not pair.folder or "/" in pair.folder:
            where = "lies in a folder of folders" if pair.folder else "lies in no folder, so its sequence is unknown"
            problems.append(SourceError(pair.image, where, f"name it {folders.images}/<sequence>/<frame>"))
        elif number is None:
            problems.append(SourceError(pair.image, "does not end in a frame number", "name it as in 00000.jpg"))
        else:
            rois.append(_frame(pair, number))
    names = Counter(roi.frame_id for roi in rois)
    problems += [
        SourceError(roi.image_path, f"has the name {roi.frame_id}, as another frame has", "rename its sequence")
        for roi in rois
        if names[roi.frame_id] > 1
    ]
    problems += wrong_frames(rois)
    if problems:
        raise joined(source_dir, problems)
    if patients is not None:
        names = sorted({roi.sequence for roi in rois})
        known = with_stems(patients, names)
        check_joined("--patients", known, names)
        rois = [replace(roi, patient=known[roi.sequence]) for roi in rois]
    return DataSet(source_dir, in_order(rois))


def in_order(rois: list[RoiSource]) -> list[RoiSource]:
    """Sort frames by sequence and number."""
    return sorted(rois, key=lambda roi: (roi.sequence, roi.frame_number))


def wrong_frames(rois: list[RoiSource]) -> list[BcssError]:
    """Return what is wrong with the frames of each sequence: their numbers, resolutions and patients."""
    problems: list[BcssError] = []
    for _, group in groupby(in_order(rois), key=lambda roi: roi.sequence):
        problems += _wrong_in_sequence(list(group))
    return problems


def _wrong_in_sequence(frames: list[RoiSource]) -> Iterator[BcssError]:
    steps = Counter(after.frame_number - before.frame_number for before, after in pairwise(frames))
    # The smallest of the most frequent steps, so that the answer does not depend on the order.
    usual = min(steps, key=lambda step: (-steps[step], step), default=0)
    first = frames[0]
    for before, after in pairwise(frames):
        if after.frame_number == before.frame_number:
            what = f"has the frame number {after.frame_number}, as {before.image_path.name} has"
            yield SourceError(after.image_path, what, "give each frame of a sequence its own number")
            return
        if after.frame_number - before.frame_number != usual:
            what = f"follows frame {before.frame_number}, but the frames of {first.sequence} are {usual} apart"
            yield SourceError(after.image_path, what, "add the missing frames, or number the frames evenly")
            return
    for frame in frames:
        if frame.mpp_um != first.mpp_um:
            what = f"has the resolution {frame.mpp_um}, but {first.image_path.name} has {first.mpp_um}"
            yield SourceError(frame.image_path, what, "give all frames of a sequence the same")
            return
        if (frame.patient, frame.split) != (first.patient, first.split):
            what = f"has another patient or split than {first.image_path.name}, which is of the same sequence"
            yield SourceError(frame.image_path, what, "give all frames of a sequence the same")
            return


def _frame(pair: Pair, number: int) -> RoiSource:
    patient, institution = of_barcode(pair.folder)
    return RoiSource(
        f"{pair.folder}_{pair.stem}",
        pair.image,
        pair.mask,
        patient or pair.folder,
        institution,
        mpp_in_name(pair.stem) or mpp_in_name(pair.folder),
        pair.class_mask,
        sequence=pair.folder,
        frame_number=number,
    )


class SequenceSizes:
    """The size of the first frame of each sequence, to find frames of another size."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Path, tuple[int, int]]] = {}

    def mismatch(self, roi: RoiSource, size: tuple[int, int]) -> SourceError | None:
        """Return the error for a frame whose size, width and height in pixels, differs from its sequence's first."""
        path, first = self._first.setdefault(roi.sequence or roi.frame_id, (roi.image_path, size))
        if first == size:
            return None
        what = f"is {size[0]} x {size[1]} px, but {path.name}, of the same sequence, is {first[0]} x {first[1]} px"
        return SourceError(roi.image_path, what, "give all frames of a sequence the same size")
