"""Divide patients into train, val and test; a patient is never on two sides."""

from __future__ import annotations

import logging

import numpy as np

from prep.discover import RoiSource
from schemas.manifest import Split

logger = logging.getLogger(__name__)

BCSS_TEST_INSTITUTIONS = frozenset({"OL", "LL", "E2", "EW", "GM", "S3"})
BCSS_SHUFFLE_SEED = 42
TRAIN_FRACTION = 0.8


def bcss_split(rois: list[RoiSource]) -> dict[str, Split]:
    """The division used with BCSS: test by institution, the rest shuffled by seed 42 and cut 80 to 20.

    With all 151 ROIs this is 85 train, 21 val and 45 test, the published pipeline's own lists. Train is never empty:
    with one or two patients outside the test institutions val is empty, and where every patient is of a test
    institution, they are divided into train and val, with a warning.

    Args:
        rois: The ROIs to divide.

    Returns:
        The split of each patient.
    """
    institutions = {roi.patient: roi.institution for roi in rois}
    rest = sorted(patient for patient, place in institutions.items() if place not in BCSS_TEST_INSTITUTIONS)
    if not rest:
        logger.warning("every ROI is from a test institution of the bcss split, so none is held out as test")
        rest = sorted(institutions)
    # The legacy generator, because the published lists were drawn with it.
    order = np.random.RandomState(BCSS_SHUFFLE_SEED).permutation(len(rest))
    train_count = max(round(TRAIN_FRACTION * len(rest)), 1)
    splits: dict[str, Split] = dict.fromkeys(institutions, "test")
    for place, position in enumerate(order):
        splits[rest[position]] = "train" if place < train_count else "val"
    return splits
