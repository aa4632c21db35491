"""Plan a build: collect everything that decides its result before the first ROI is decoded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prep.config import BuildConfig
from prep.source.case_table import is_case_table, read_case_table
from prep.source.discover import DataSet, RoiSource, find_rois, size_mismatch
from prep.source.folders import Folders
from prep.source.sequences import SequenceSizes, find_sequences
from prep.source.split import SplitRule, Splitter, default_rule
from schemas.errors import ConfigError, SourceError, joined
from schemas.layout import ArraySpec, array_specs
from schemas.limits import MAX_ROI_PX
from schemas.manifest import Split, fingerprint
from schemas.picture.decode import image_header

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildPlan:
    """What a build is made from.

    Attributes:
        source_dir: The folder that holds the folders of images and masks, absolute.
        config: The settings.
        rois: The pairs of image and mask, sorted by name.
        splits: The split of each patient.
        specs: The arrays of the store.
        split_method: How the patients were divided, in words.
    """

    source_dir: Path
    config: BuildConfig
    rois: list[RoiSource]
    splits: dict[str, Split]
    specs: tuple[ArraySpec, ...] = field(repr=False)
    split_method: str = ""

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values; equal plans build equal stores from unchanged files."""
        values: dict[str, Any] = {
            "tool_version": version("bcss-sam2"),
            "source": str(self.source_dir),
            "config": self.config.model_dump(mode="json"),
            "rois": [[roi.frame_id, roi.patient, roi.institution, roi.mpp_um] for roi in self.rois],
            "splits": self.splits,
        }
        if self.config.sequences:
            values["frames"] = [[roi.sequence, roi.frame_number] for roi in self.rois]
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, in hexadecimal."""
        return fingerprint(self.as_json())


def plan_build(
    source: Path | DataSet,
    config: BuildConfig,
    splitter: Splitter | None = None,
    patients: Mapping[str, str] | None = None,
) -> BuildPlan:
    """Find the ROIs, compare the headers of their files, and divide the patients.

    Args:
        source: The folder that holds the folders of images and masks, a table of cases, or the ROIs themselves.
        config: The settings.
        splitter: Divides the patients into splits; unless given, the preset of the data set decides.
        patients: The patient of each ROI by its stem, or of each sequence by its name, for names that do not give it.

    Raises:
        SourceError: A file has no partner, cannot be read, or differs from its partner in size. One error lists all
            such problems.
        ConfigError: The patients cannot be divided as the user asks, or the class map merges an ignored code into one
            that counts.
    """
    _check_ignored(config)
    data = source if isinstance(source, DataSet) else read_source(source, config.folders, patients)
    if data.has_sequences != config.sequences:
        what = "holds sequences" if data.has_sequences else "holds no sequences"
        raise ConfigError(data.root, what, f"set sequences={data.has_sequences} in the configuration")
    rois = [replace(roi, mpp_um=roi.mpp_um or config.source_mpp_um) for roi in data.rois]
    _check_scale(rois, config)
    unlabeled = [roi for roi in rois if roi.mask_path is None]
    if unlabeled:
        shown = unlabeled[0].image_path
        logger.info("frames without a mask count as unlabeled: %d, such as %s", len(unlabeled), shown)
    label_dtype, has_sequences = _label_dtype(data, config), config.sequences
    specs = array_specs(config.size_px, label_dtype, config.point_counts, config.objects, has_sequences=has_sequences)
    rule = splitter or default_rule(rois, config.dataset)
    method = rule.method if isinstance(rule, SplitRule) else "a function of the caller"
    return BuildPlan(data.root, config, rois, rule(rois), tuple(specs), method)


def _check_ignored(config: BuildConfig) -> None:
    """Refuse to merge an ignored code into one that counts. Stores of earlier versions may have such settings.

    Raises:
        ConfigError: There is such a code.
    """
    hidden = [code for code in config.ignore if config.merges.get(code, code) not in config.ignore]
    if hidden:
        what = f"names {hidden[0]}, which the class map merges into {config.merges[hidden[0]]}"
        rest = ",".join(str(code) for code in config.ignore if code not in hidden) or "none"
        raise ConfigError("--ignore", what, f"give --ignore {rest}, or change the class map")


def _check_scale(rois: list[RoiSource], config: BuildConfig) -> None:
    """Refuse tiles that cover more pixels of a ROI than any ROI may have; no reader would accept such a store.

    Raises:
        ConfigError: There is such a ROI.
    """
    for roi in rois:
        if config.mpp_um is not None and roi.mpp_um is not None and config.layout == "tile":
            side_px = config.size_px * config.mpp_um / roi.mpp_um
            if side_px**2 > MAX_ROI_PX:
                what = f"makes a tile cover {side_px:.0f} x {side_px:.0f} px of {roi.image_path}"
                raise ConfigError(
                    f"--size {config.size_px} with --mpp {config.mpp_um:g}", what, "give a smaller --size"
                )


def read_source(source: Path, folders: Folders, patients: Mapping[str, str] | None = None) -> DataSet:
    """Find the ROIs of a folder or of a table of cases.

    Args:
        source: The folder that holds the folders of images and masks, or a CSV file.
        folders: Where the files lie in a folder.
        patients: The patient of each ROI or sequence by its name, for names that do not give it.

    Raises:
        SourceError: A file is missing or cannot be used.
        ConfigError: The table, or `patients`, cannot be used.
    """
    # The current folder of worker processes may be different.
    source = source.absolute()
    if not is_case_table(source):
        return (find_sequences if folders.sequences else find_rois)(source, folders, patients)
    if replace(folders, sequences=False, unpaired=None) != Folders() or folders.unpaired == "skip":
        what = "names its files itself"
        raise ConfigError(source, what, "leave out --images, --masks, their suffixes, --class-mask and --unpaired")
    if patients is not None:
        raise ConfigError("--patients", "is for folders", f"fill the column patient of {source.name}")
    return read_case_table(source, folders)


def _label_dtype(data: DataSet, config: BuildConfig) -> str:
    """Return the type that holds the values of all masks, and compare the sizes of each pair and of each sequence.

    Raises:
        SourceError: A file cannot be read, or files that belong together differ in size. One error lists all such
            problems.
    """
    dtype, sizes = "uint8", SequenceSizes()
    turned: list[Path] = []
    problems: list[SourceError] = []
    many_colors = any(code > 255 for code in config.colors.values())
    for roi in data.rois:
        try:
            image, *masks = map(image_header, roi.paths)
        except SourceError as error:
            problems.append(error)
            continue
        mismatch = sizes.mismatch(roi, image.size)
        if mismatch is not None:
            problems.append(mismatch)
        for path, mask in zip(roi.paths[1:], masks, strict=True):
            if image.size != mask.size:
                problems.append(size_mismatch(path, roi.image_path, mask.size, image.size))
        if masks and (masks[0].wide or ((masks[0].is_color or config.color_masks) and many_colors)):
            dtype = "uint16"
        turned += [path for path, header in zip(roi.paths, (image, *masks), strict=True) if header.turned]
    if problems:
        raise joined(data.root, problems)
    if turned:
        logger.warning("files that their orientation tag rotates or flips: %d, such as %s", len(turned), turned[0])
    return dtype
