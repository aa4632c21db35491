"""Read parts of an image or a slide at any scale. Coordinates are x, y in pixels of level 0; arrays are H, W."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError, SourceError
from schemas.file_names import is_utf8
from schemas.picture.decode import image_header, read_image
from schemas.picture.orientation import UPRIGHT
from schemas.picture.picture_file import open_picture
from schemas.picture.resolution import MAX_MPP_UM, picture_mpp
from schemas.picture.tiff import TiffContent

logger = logging.getLogger(__name__)

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm")
_TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", *_TIFF_SUFFIXES)

MAX_STEM_BYTES = 230
"""Longest stem of an image: file systems allow 255 bytes for a name, and the names of results end in up to 20 more."""


class ImageSource(Protocol):
    """An image that can be read in parts.

    Attributes:
        path: Path of the file.
        size_xy: Width and height in pixels.
        mpp_um: Micrometers per pixel; None if the file does not state it.
        is_slide: Whether it is a slide, which is mostly background.
        qupath_origin_xy: The pixel from which QuPath counts.
    """

    path: Path
    size_xy: tuple[int, int]
    mpp_um: float | None
    is_slide: bool
    qupath_origin_xy: tuple[int, int]

    def read(self, left: int, top: int, width: int, height: int, out_xy: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a part of the image and resize it.

        Args:
            left: x of the first pixel.
            top: y of the first pixel.
            width: Width of the part, which must lie inside the image.
            height: Height of the part.
            out_xy: Width and height of the result.

        Returns:
            uint8 (H, W, 3), RGB.

        Raises:
            SourceError: This part of the file is damaged.
        """
        ...


class Picture:
    """An image that is in memory as a whole.

    Args:
        image: uint8 (H, W, 3), RGB.
        path: Path of the file, for messages.
        mpp_um: Micrometers per pixel; None if it is not known.
    """

    is_slide = False
    qupath_origin_xy: tuple[int, int] = (0, 0)

    def __init__(self, image: NDArray[np.uint8], path: Path = Path("image"), mpp_um: float | None = None) -> None:
        self.path = path
        self.size_xy = (image.shape[1], image.shape[0])
        self.mpp_um = mpp_um
        self._image = image

    def read(self, left: int, top: int, width: int, height: int, out_xy: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a part; see `ImageSource`."""
        return _resized(self._image[top : top + height, left : left + width], out_xy)


class Slide:
    """A slide that OpenSlide reads.

    Args:
        path: Path of the file.

    Raises:
        SourceError: OpenSlide cannot read the file.
        ConfigError: OpenSlide is not installed.
    """

    is_slide = True

    def __init__(self, path: Path) -> None:
        self._library = _openslide(path)
        self.path = path
        try:
            self._slide: Any = self._library.OpenSlide(str(path))
        except (self._library.OpenSlideError, OSError) as error:
            raise SourceError(path, f"cannot be read as a slide ({error})", "check the file") from error
        self.size_xy: tuple[int, int] = self._slide.dimensions
        self.mpp_um = _mpp(self._slide.properties)
        self.qupath_origin_xy = _qupath_origin(self._slide.properties)
        if self._slide.properties.get("openslide.vendor") == "generic-tiff":
            self._check_plain(_tiff(path))

    def _check_plain(self, content: TiffContent | None) -> None:
        """Refuse a tiled TIFF of several images, and search a gray one everywhere, as an image without tiles."""
        if content is None:
            return
        first, *others = content.pages
        if any(page.size == first.size for page in others):
            what = f"has {len(content.pages)} pages, and only the first would be read"
            raise SourceError(self.path, what, "save the one you need in its own file")
        # Background is told from tissue by its color.
        self.is_slide = content.samples >= 3

    def read(self, left: int, top: int, width: int, height: int, out_xy: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a part from the smallest level that is large enough; see `ImageSource`."""
        factor = max(min(width / out_xy[0], height / out_xy[1]), 1.0)
        level = self._slide.get_best_level_for_downsample(factor * 1.001)
        down = self._slide.level_downsamples[level]
        size = max(round(width / down), 1), max(round(height / down), 1)
        try:
            region = self._slide.read_region((left, top), level, size)
        except (self._library.OpenSlideError, OSError) as error:
            where = f"{self.path} at {left}, {top}"
            raise SourceError(where, f"cannot be read ({error})", "check the file, or leave this part out") from error
        pixels = np.asarray(region)
        rgb, alpha = pixels[..., :3], pixels[..., 3:]
        if (alpha < 255).any():
            # Pixels that the scanner did not record are transparent; they become white.
            weights = alpha.astype(np.uint16)
            rgb = ((rgb * weights + 255 * (255 - weights)) // 255).astype(np.uint8)
        return _resized(rgb, out_xy)


@dataclass(frozen=True)
class SourceHeader:
    """What is known of an image or a slide before its pixels are read.

    Attributes:
        size_xy: Width and height in pixels.
        qupath_origin_xy: The pixel from which QuPath counts.
    """

    size_xy: tuple[int, int]
    qupath_origin_xy: tuple[int, int] = (0, 0)


def read_header(path: Path) -> SourceHeader:
    """Read the header of an image or a slide.

    Raises:
        SourceError: The file cannot be read.
        ConfigError: The file is a slide, and OpenSlide is not installed.
    """
    if not _is_slide(path):
        return SourceHeader(image_header(path).size)
    slide = Slide(path)
    return SourceHeader(slide.size_xy, slide.qupath_origin_xy)


def open_source(path: Path, mpp_um: float | None = None) -> ImageSource:
    """Open an image or a slide.

    Args:
        path: PNG, JPEG, TIFF, or a slide that OpenSlide reads. A TIFF that OpenSlide recognizes is opened as a slide.
        mpp_um: Micrometers per pixel, if the file states none or a wrong value.

    Raises:
        SourceError: The file cannot be read.
        ConfigError: The file is a slide, and OpenSlide is not installed.
    """
    if not path.is_file():
        raise SourceError(path, "is not a file", "give images, slides, or folders of them")
    source: ImageSource = Slide(path) if _is_slide(path) else Picture(read_image(path), path, picture_mpp(path))
    if mpp_um is not None:
        source.mpp_um = mpp_um
    elif source.mpp_um is not None and source.mpp_um > MAX_MPP_UM:
        what = "which is not that of a microscope, so it is not used (--source-mpp gives another)"
        logger.info("%s states a resolution of %g um per pixel, %s", path, source.mpp_um, what)
        source.mpp_um = None
    return source


def find_sources(paths: list[Path]) -> list[Path]:
    """List the given files, and the images and slides in the given folders, sorted within each folder.

    Raises:
        SourceError: A path does not exist, a folder holds no image, or two sources have the same stem.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in (*SLIDE_SUFFIXES, *PICTURE_SUFFIXES) and not file.name.startswith(".")
            )
            if not inside:
                raise SourceError(path, "holds no image or slide", "give a folder of images")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise SourceError(path, "does not exist", "check the path")
    for path in found:
        if not path.stem.strip(".") or not is_utf8(path.name) or len(path.stem.encode()) > MAX_STEM_BYTES:
            raise SourceError(path, "has a name that result files cannot have", "rename it")
    stems = [path.stem for path in found]
    twice = [path for path in found if stems.count(path.stem) > 1]
    if twice:
        raise SourceError(twice[1], f"has the same stem as {twice[0]}", "predict them into two folders")
    return found


def is_turned(path: Path) -> bool:
    """Whether the orientation tag of an image rotates or flips it.

    Raises:
        SourceError: The file is absent, too large, or not an image.
    """
    suffix = path.suffix.lower()
    if suffix in _TIFF_SUFFIXES:
        content = _tiff(path)
        return content is not None and content.orientation != UPRIGHT
    return suffix in PICTURE_SUFFIXES and image_header(path).turned


def _is_slide(path: Path) -> bool:
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return True
    if path.suffix.lower() not in _TIFF_SUFFIXES:
        return False
    content = _tiff(path)
    # OpenSlide reads a TIFF without regard to its orientation tag, and keeps only 8 bits of each value.
    if content is not None and (content.orientation != UPRIGHT or content.bits > 8):
        return False
    try:
        # Without OpenSlide, a TIFF is opened as a picture, which works as long as it fits into memory.
        return _openslide(path).OpenSlide.detect_format(str(path)) is not None
    except ConfigError:
        return False


def _openslide(path: Path) -> Any:
    try:
        import openslide
    except ImportError as error:
        raise ConfigError(path, "is a slide, which needs OpenSlide", "run `pip install 'bcss-sam2[slides]'`") from error
    return openslide


def _mpp(properties: Any) -> float | None:
    try:
        x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in ("x", "y"))
    except (KeyError, ValueError):
        return None
    return (x + y) / 2 if x > 0 and y > 0 else None


def _qupath_origin(properties: Any) -> tuple[int, int]:
    """Return where QuPath's coordinates begin: it crops slides to the bounds of what the scanner recorded."""
    try:
        x, y, _, _ = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return 0, 0
    return x, y


def _tiff(path: Path) -> TiffContent | None:
    """Return what a TIFF holds; None for other files."""
    if path.suffix.lower() not in _TIFF_SUFFIXES:
        return None
    with open_picture(path) as picture:
        return picture.tiff


def _resized(image: NDArray[np.uint8], out_xy: tuple[int, int]) -> NDArray[np.uint8]:
    if (image.shape[1], image.shape[0]) == out_xy:
        return np.ascontiguousarray(image)
    shrinks = image.shape[1] >= out_xy[0] and image.shape[0] >= out_xy[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, out_xy, interpolation=interpolation), np.uint8)
