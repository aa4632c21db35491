"""The plan of a build: what it is made from, known before the first ROI is decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prep.config import BuildConfig
from prep.derive.roi import size_mismatch
from prep.source.decode import image_header
from prep.source.discover import RoiSource, find_pairs
from schemas.layout import ArraySpec, array_specs
from schemas.manifest import Split, fingerprint

logger = logging.getLogger(__name__)

Splitter = Callable[[list[RoiSource]], dict[str, Split]]
"""Returns the split of each patient."""


@dataclass(frozen=True)
class BuildPlan:
    """What a build is made from.

    Attributes:
        source_dir: The folder that holds the folders of images and masks, absolute.
        config: The settings.
        rois: The pairs of image and mask, by name.
        splits: The split of each patient.
        specs: The arrays of the store.
    """

    source_dir: Path
    config: BuildConfig
    rois: list[RoiSource]
    splits: dict[str, Split]
    specs: tuple[ArraySpec, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values; equal plans build equal stores from unchanged files."""
        return {
            "tool_version": version("bcss-sam2"),
            "source": str(self.source_dir),
            "config": self.config.model_dump(mode="json"),
            "rois": [roi.frame_id for roi in self.rois],
            "splits": self.splits,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, in hexadecimal."""
        return fingerprint(self.as_json())


def plan_build(
    source_dir: Path, config: BuildConfig, splitter: Splitter, patients: Mapping[str, str] | None = None
) -> BuildPlan:
    """Find the ROIs, compare the headers of their files, and divide the patients.

    Args:
        source_dir: The folder that holds the folders of images and masks.
        config: The settings.
        splitter: Divides the patients into splits.
        patients: The patient of each ROI by its stem, where names do not tell it.

    Raises:
        SourceError: A file has no partner, cannot be read, or differs from its partner in size.
        ConfigError: The patients cannot be divided as the user asks.
    """
    # Worker processes may have another current folder.
    source_dir = source_dir.absolute()
    found = find_pairs(source_dir, config.images, config.masks, patients)
    rois = [replace(roi, mpp_um=roi.mpp_um or config.source_mpp_um) for roi in found]
    specs = tuple(array_specs(config.size_px, _label_dtype(rois), config.point_counts))
    return BuildPlan(source_dir, config, rois, splitter(rois), specs)


def _label_dtype(rois: list[RoiSource]) -> str:
    """The type that holds the values of all masks; compares the sizes of each pair on the way.

    Raises:
        SourceError: A file cannot be read, or a mask has another size than its image.
    """
    dtype = "uint8"
    turned: list[Path] = []
    for roi in rois:
        paths = roi.image_path, roi.mask_path
        image, mask = map(image_header, paths)
        if image.size != mask.size:
            raise size_mismatch(roi, image.size, mask.size)
        if mask.wide:
            dtype = "uint16"
        turned += [path for path, header in zip(paths, (image, mask), strict=True) if header.turned]
    if turned:
        logger.warning("files that are turned as their orientation tag says: %d, such as %s", len(turned), turned[0])
    return dtype
