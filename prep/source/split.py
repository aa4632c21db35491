"""Divide patients into train, val and test; all ROIs of a patient are in one split."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prep.source.discover import RoiSource
from prep.source.side_file import check_joined, with_stems
from schemas.errors import ConfigError
from schemas.manifest import SPLITS, Split
from schemas.text_file import read_table

logger = logging.getLogger(__name__)

BCSS_TEST_INSTITUTIONS = frozenset({"OL", "LL", "E2", "EW", "GM", "S3"})
BCSS_SHUFFLE_SEED = 42
TRAIN_FRACTION = 0.8

GENERIC_SHUFFLE_SEED = 0
HELD_OUT_FRACTION = 0.15
"""Fraction of the patients in val, and also in test, for data sets other than BCSS."""

_ROI_COLUMNS = ("frame_id", "name")
_NAME_COLUMNS = ("patient", *_ROI_COLUMNS)
_PATIENT_COLUMNS = (*_ROI_COLUMNS, "sequence")


Splitter = Callable[[list[RoiSource]], dict[str, Split]]
"""Returns the split of each patient."""


@dataclass(frozen=True)
class SplitRule:
    """A way to divide patients, and how the manifest describes it.

    Attributes:
        method: The description.
        divide: Returns the split of each patient.
    """

    method: str
    divide: Splitter

    def __call__(self, rois: list[RoiSource]) -> dict[str, Split]:
        """Divide the patients."""
        return self.divide(rois)


def default_rule(rois: list[RoiSource], dataset: str = "bcss") -> SplitRule:
    """Choose how patients are divided if the user does not say.

    Args:
        rois: The ROIs to divide.
        dataset: The preset. `bcss` uses the published division if a ROI's name begins with a TCGA barcode.

    Returns:
        A rule that uses the splits that a table or folders give; without them, `bcss_split` or `generic_split`.
    """
    if any(roi.split for roi in rois):
        return SplitRule("given by the table or by folders", table_split)
    if dataset == "bcss" and any(roi.institution for roi in rois):
        return SplitRule("published division of BCSS: test by institution, the rest 80/20, seed 42", bcss_split)
    return SplitRule("70/15/15 % of the patients, seed 0", generic_split)


def table_split(rois: list[RoiSource]) -> dict[str, Split]:
    """Return the split that the table of cases, or a folder, gives each patient.

    Raises:
        ConfigError: A patient is in two splits.
    """
    splits: dict[str, Split] = {}
    for roi in rois:
        if roi.split and splits.setdefault(roi.patient, roi.split) != roi.split:
            what = f"is in the splits {splits[roi.patient]} and {roi.split} ({roi.frame_id})"
            raise ConfigError(f"patient {roi.patient}", what, "move its images into one folder, or give --split-file")
    return splits


def generic_split(rois: list[RoiSource]) -> dict[str, Split]:
    """Divide shuffled patients by 70, 15 and 15 percent.

    Train is never empty. With two patients, one is held out for test. With three or more, each split has at least one.

    Args:
        rois: The ROIs to divide.

    Returns:
        The split of each patient.
    """
    patients = sorted({roi.patient for roi in rois})
    held_out = max(round(HELD_OUT_FRACTION * len(patients)), 1)
    test_count = held_out if len(patients) > 1 else 0
    val_count = held_out if len(patients) > 2 else 0
    order = np.random.default_rng(GENERIC_SHUFFLE_SEED).permutation(len(patients))
    bounds = np.cumsum((len(patients) - test_count - val_count, val_count, test_count))
    return _divided(patients, order, bounds)


def bcss_split(rois: list[RoiSource]) -> dict[str, Split]:
    """Divide patients as the published BCSS pipeline does: test by institution, the rest shuffled with seed 42, 80:20.

    All 151 ROIs give 85 in train, 21 in val and 45 in test, as in the lists of the published pipeline. Train is never
    empty: with one or two patients outside the test institutions, val is empty. If every patient is from a test
    institution, a warning says so, and the patients are divided into train and val.

    Args:
        rois: The ROIs to divide.

    Returns:
        The split of each patient.
    """
    institutions = {roi.patient: roi.institution for roi in rois}
    rest = sorted(patient for patient, place in institutions.items() if place not in BCSS_TEST_INSTITUTIONS)
    if not rest:
        logger.warning(
            "every ROI (%s and %d more) is from a test institution of the bcss split, so none is held out for test",
            rois[0].frame_id,
            len(rois) - 1,
        )
        rest = sorted(institutions)
    # The published lists were drawn with NumPy's legacy generator.
    order = np.random.RandomState(BCSS_SHUFFLE_SEED).permutation(len(rest))
    train_count = max(round(TRAIN_FRACTION * len(rest)), 1)
    splits: dict[str, Split] = dict.fromkeys(institutions, "test")
    for place, position in enumerate(order):
        splits[rest[position]] = "train" if place < train_count else "val"
    return splits


def fraction_split(rois: list[RoiSource], fractions: Sequence[float], seed: int) -> dict[str, Split]:
    """Divide shuffled patients by fractions for train, val and test.

    Args:
        rois: The ROIs to divide.
        fractions: The shares of train, val and test, which sum to 1.
        seed: Seed of the shuffle.

    Returns:
        The split of each patient.

    Raises:
        ConfigError: The shares are not three numbers that sum to 1.
    """
    are_shares = len(fractions) == len(SPLITS) and all(0 <= share <= 1 for share in fractions)
    if not are_shares or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ConfigError("--split-fractions", "are not three shares that sum to 1", "give train,val,test: 0.8,0.1,0.1")
    patients = sorted({roi.patient for roi in rois})
    order = np.random.default_rng(seed).permutation(len(patients))
    bounds = np.round(np.cumsum(fractions) * len(patients)).astype(int)
    if fractions[0]:
        # Train gets at least one patient unless its share is 0, as for a cohort that is only evaluated.
        bounds = np.maximum(bounds, 1)
    return _divided(patients, order, bounds)


def _divided(patients: list[str], order: NDArray[np.int64], bounds: NDArray[np.int64]) -> dict[str, Split]:
    """Return the split of each patient, given the order of patients and the ends of train, val and test in it."""
    return {
        patients[position]: SPLITS[int(np.searchsorted(bounds, place, side="right"))]
        for place, position in enumerate(order)
    }


def file_split(rois: list[RoiSource], path: Path, suffixes: tuple[str, ...] = ()) -> dict[str, Split]:
    """Divide patients by a CSV file with the column `split`, and `patient` or `frame_id` (or `name`), or both.

    Args:
        rois: The ROIs to divide.
        path: The file.
        suffixes: What the stems of files have after the names of ROIs, such as `_0000`.

    Returns:
        The split of each patient.

    Raises:
        ConfigError: The file cannot be read, leaves a patient out, or puts one into two splits.
    """
    frames, of_patients = {roi.frame_id for roi in rois}, {roi.patient for roi in rois}
    chosen = with_stems(_read_split_file(path), frames | of_patients, suffixes)
    # A line for a patient covers all of the patient's ROIs.
    wanted = [roi.frame_id for roi in rois if roi.patient not in chosen]
    check_joined(path, chosen, wanted, frames | of_patients)
    splits: dict[str, Split] = {}
    for roi in rois:
        split = chosen.get(roi.frame_id) or chosen[roi.patient]
        if splits.setdefault(roi.patient, split) != split:
            raise ConfigError(
                path, f"puts patient {roi.patient} into {splits[roi.patient]} and {split}", "choose one of the two"
            )
    return splits


def _read_split_file(path: Path) -> dict[str, Split]:
    rows = [row for _, row in read_table(path, "give a CSV with the columns patient,split")]
    columns = [name for name in _NAME_COLUMNS if rows and name in rows[0]]
    if not columns or "split" not in rows[0]:
        raise ConfigError(path, "lacks a column", "it needs patient,split (or frame_id,split)")
    by_name: dict[str, Split] = {split: split for split in SPLITS}
    chosen: dict[str, Split] = {}
    for row in rows:
        names, given = [row[column] for column in columns], row["split"]
        split = by_name.get(given)
        if split is None:
            raise ConfigError(path, f"has split {given!r} for {names[0]}", f"use one of {', '.join(SPLITS)}")
        for name in filter(None, names):
            if chosen.setdefault(name, split) != split:
                raise ConfigError(path, f"names {name} with two splits", "keep one of the lines")
    return chosen


def file_patients(path: Path) -> dict[str, str]:
    """Read the patient of each ROI from a CSV file with `patient`, and `frame_id` (or `name`, or `sequence`).

    Returns:
        The patient of each ROI by its stem, or of each sequence by its name.

    Raises:
        ConfigError: The file cannot be read, lacks a column, or gives a ROI two patients or none.
    """
    rows = [row for _, row in read_table(path, "give a CSV with the columns frame_id,patient")]
    column = next((name for name in _PATIENT_COLUMNS if rows and name in rows[0]), None)
    if column is None or "patient" not in rows[0]:
        raise ConfigError(path, "lacks a column", "it needs frame_id,patient")
    patients: dict[str, str] = {}
    for row in rows:
        roi, patient = row[column], row["patient"]
        if not patient or patients.setdefault(roi, patient) != patient:
            raise ConfigError(path, f"gives {roi} {'two patients' if patient else 'no patient'}", "give it one")
    return patients
