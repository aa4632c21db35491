"""Decode the image and the mask of one ROI. Arrays are H, W; coordinates are x, y."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prep.config import ALL_CLASSES, BuildConfig
from prep.derive.rims import rim_classes
from prep.derive.segments import pixel_counts
from prep.derive.tiles import resample
from prep.source.colors import read_labels
from prep.source.discover import RoiSource, size_mismatch
from prep.source.instances import (
    ONE_CLASS,
    Instances,
    class_of_instances,
    listed_classes,
    read_instances,
    read_tracks,
)
from schemas.errors import SourceError
from schemas.picture.decode import LabelArray, image_header, read_image


@dataclass(frozen=True)
class DecodedRoi:
    """The pixels of a ROI.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 or uint16 (H, W), the values of the mask; for a mask of instances, the numbers of the instances,
            and 0 for instances of classes that are not wanted.
        wanted: The codes in the ROI, after merges, that become objects.
        size_xy: Width and height of the files in pixels.
        scale_xy: Pixels of these arrays for each pixel of the files, along x and y.
        rims: Number of pixels of each code that looks like a blend of two others; see `prep.derive.rims`.
        recolored_px: Number of pixels whose color belongs to no class, and that got the class of the nearest color.
        instances: Classes and ids of the instances; None for masks of classes.
        class_px: Number of pixels of each wanted class in the files.
        is_labeled: Whether there is a mask; without one, all labels are 0 and all pixels are ignored.
    """

    image: NDArray[np.uint8]
    labels: LabelArray
    wanted: frozenset[int]
    size_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    rims: dict[int, int]
    recolored_px: int = 0
    instances: Instances | None = None
    class_px: dict[int, int] = field(default_factory=dict[int, int])
    is_labeled: bool = True


def decode_roi(roi: RoiSource, config: BuildConfig) -> DecodedRoi:
    """Decode both files, and check their sizes and the codes of the mask.

    Raises:
        SourceError: A file is damaged, their sizes differ, or the mask contains an unknown code.
    """
    instances, recolored_px, rims, counts = None, 0, dict[int, int](), None
    if roi.mask_path is None:
        width, height = image_header(roi.image_path).size
        instances = Instances(np.zeros((height, width), np.uint8), {}, {})
        labels, present = instances.ids, []
    elif config.objects == "instance":
        instances = _read_instances(roi, roi.mask_path, config)
        labels, present = instances.ids, sorted(set(instances.class_of.values()))
    else:
        labels, recolored_px = _read_codes(roi.mask_path, config)
        counts = pixel_counts(labels)
        present = list(counts)
        _check_codes(roi.mask_path, present, config)
        rims = rim_classes(labels, present)
    image = read_image(roi.image_path)
    if image.shape[:2] != labels.shape:
        image_size, mask_size = (image.shape[1], image.shape[0]), (labels.shape[1], labels.shape[0])
        raise size_mismatch(roi.labels_path, roi.image_path, mask_size, image_size)
    size_xy, scale_xy = (labels.shape[1], labels.shape[0]), (1.0, 1.0)
    class_of = instances.class_of if instances else {code: config.merges.get(code, code) for code in present}
    wanted = config.wanted(sorted(set(class_of.values())))
    class_px = _class_px(counts or pixel_counts(labels), class_of, wanted)
    if config.mpp_um is not None:
        image, labels, scale_xy = resample(image, labels, _scale_to(roi, config.mpp_um))
    has_mask = roi.mask_path is not None
    return DecodedRoi(image, labels, wanted, size_xy, scale_xy, rims, recolored_px, instances, class_px, has_mask)


def _read_codes(path: Path, config: BuildConfig) -> tuple[LabelArray, int]:
    return read_labels(path, config.colors, nearest=config.nearest_color, always=config.color_masks)


def _class_px(counts: dict[int, int], class_of: dict[int, int], wanted: frozenset[int]) -> dict[int, int]:
    """Return the number of pixels of each wanted class, given the pixel count and the class of each value."""
    found = dict.fromkeys(sorted(wanted), 0)
    for value, code in class_of.items():
        if code in wanted:
            found[code] += counts.get(value, 0)
    return found


def _read_instances(roi: RoiSource, path: Path, config: BuildConfig) -> Instances:
    """Read the instances with their classes; those of classes that are neither wanted nor ignored become background."""
    ids, source_ids = read_tracks(path, config.ignore) if roi.sequence else read_instances(path)
    if roi.class_mask_path is not None:
        classes, _ = _read_codes(roi.class_mask_path, config)
        if classes.shape != ids.shape:
            class_size, id_size = (classes.shape[1], classes.shape[0]), (ids.shape[1], ids.shape[0])
            raise size_mismatch(roi.class_mask_path, roi.image_path, class_size, id_size)
        class_of = class_of_instances(roi.class_mask_path, ids, classes, source_ids)
    elif config.instance_classes:
        table = {(frame_id, value): code for frame_id, value, code in config.instance_classes}
        class_of = listed_classes(path, roi.sequence or roi.frame_id, source_ids, table)
    else:
        one = ONE_CLASS if config.classes == ALL_CLASSES else config.classes[0]
        class_of = dict.fromkeys(source_ids, one)
    present = sorted(set(class_of.values()))
    _check_codes(path, present, config)
    class_of = {number: config.merges.get(code, code) for number, code in class_of.items()}
    wanted = config.wanted(sorted(set(class_of.values())))
    # In sequences, the settings give ignored values of the masks instead of ignored classes.
    of_ignored_class = (number for number, code in class_of.items() if code in config.ignore)
    ignored = frozenset(config.ignore if roi.sequence else of_ignored_class)
    left_out = [number for number, code in class_of.items() if code not in wanted and number not in ignored]
    if left_out:
        is_left_out = np.isin(np.arange(int(ids.max()) + 1), left_out)
        ids = np.where(is_left_out[ids], ids.dtype.type(0), ids)
    return Instances(ids, class_of, source_ids, ignored)


def _scale_to(roi: RoiSource, mpp_um: float) -> float:
    """Return the factor that shrinks a ROI to a resolution; enlarging is an error, since it would invent pixels."""
    if roi.mpp_um is None:
        raise SourceError(
            roi.image_path,
            "states no resolution",
            "give --source-mpp, or name the file like ..._MPP-0.2500, or leave out --mpp",
        )
    if mpp_um < roi.mpp_um * 0.999:
        raise SourceError(
            roi.image_path,
            f"has {roi.mpp_um} um per pixel, coarser than --mpp {mpp_um}",
            f"give --mpp {roi.mpp_um} or more",
        )
    return min(roi.mpp_um / mpp_um, 1.0)


def _check_codes(path: Path, present: list[int], config: BuildConfig) -> None:
    if config.classes == ALL_CLASSES:
        return
    known = config.known_codes()
    unknown = [code for code in present if code not in known]
    if unknown:
        codes = ", ".join(str(code) for code in unknown)
        raise SourceError(
            path,
            f"contains unknown class code {codes}",
            "name it in --classes, --ignore or --class-map, or take every code with --classes all",
        )
