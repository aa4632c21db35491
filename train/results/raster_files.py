"""Write objects as a label image, and as an overlay picture for people. Arrays are H, W; coordinates are x, y."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from train.prompts.object_class import NO_CLASS_COLOR
from train.results.placed_object import PlacedObject
from train.results.vector_files import level0_mask
from train.slide.working_grid import WorkingGrid

PNG_MAX_PX = 1 << 26
"""Largest number of pixels of a PNG; a larger label image is written as a TIFF pyramid."""

TIFF_TILE_PX = 512

TILES_PER_READ = 16
"""Tiles of a row that are read at once. A fixed number keeps the memory from growing with the width of the slide."""

_LABEL = np.dtype(np.uint32)
Labels = NDArray[np.uint8 | np.uint16 | np.uint32]
LabelType = np.dtype[np.uint8 | np.uint16 | np.uint32]


class LabelImage:
    """Writes an image whose pixel values are the numbers of objects; 0 where there is no object.

    Where objects overlap, the smallest is shown; of two that are equally large, the later one. Until the image is
    written, a temporary file holds the labels, and memory holds eight bytes for each object.

    Args:
        path: The file to write, without its ending, which depends on the size: `.png`, or `.ome.tif`.
        grid: The image.
    """

    def __init__(self, path: Path, grid: WorkingGrid) -> None:
        self._path, self._grid = path, grid
        self._shape = grid.region[3], grid.region[2]
        self._raw = path.with_name(f"{path.name}.raw")
        # This is a file and not a memory map: a full disk would kill the process, and the map counts as its memory.
        self._file = self._raw.open("w+b")
        self._file.truncate(self._shape[0] * self._shape[1] * _LABEL.itemsize)
        self._last = 0
        # The area of each object by its number. The background, 0, counts as larger than any object.
        self._areas = np.zeros(1024, np.int64)
        self._areas[0] = np.iinfo(np.int64).max

    def add(self, item: PlacedObject) -> None:
        """Paint one object."""
        x, y, mask = level0_mask(item, self._grid)
        if item.number >= len(self._areas):
            self._areas = np.concatenate([self._areas, np.zeros_like(self._areas)])
        self._areas[item.number] = item.found.area_px
        for row in np.flatnonzero(mask.any(1)).tolist():
            place = ((y + row) * self._shape[1] + x) * _LABEL.itemsize
            self._file.seek(place)
            line = np.frombuffer(self._file.read(mask.shape[1] * _LABEL.itemsize), _LABEL).copy()
            line[mask[row] & (self._areas[line] >= item.found.area_px)] = item.number
            self._file.seek(place)
            self._file.write(line.tobytes())
        self._last = max(self._last, item.number)

    def close(self) -> None:
        """Write the file."""
        dtype = np.dtype(np.uint8 if self._last < 256 else np.uint16 if self._last < 65536 else np.uint32)
        if self._shape[0] * self._shape[1] <= PNG_MAX_PX and dtype != np.uint32:
            labels = self._part(0, 0, self._shape, 1, dtype)
            Image.fromarray(labels).save(self._path.with_name(f"{self._path.name}.png"))
        else:
            self._write_pyramid(dtype)
        self.discard()

    def discard(self) -> None:
        """Remove the temporary file of labels."""
        with suppress(OSError):
            # If the disk is full, the unwritten rest is dropped.
            self._file.close()
        self._raw.unlink(missing_ok=True)

    def _part(self, top: int, left: int, size_hw: tuple[int, int], step: int, dtype: LabelType) -> Labels:
        """Read a part of the image as far as it lies inside, taking every `step`-th row and column."""
        height, width = self._shape
        places = range(top, min(top + size_hw[0], height), step)
        across = min(size_hw[1], width - left)
        part = np.empty((len(places), -(-across // step)), dtype)
        for number, row in enumerate(places):
            self._file.seek((row * width + left) * _LABEL.itemsize)
            part[number] = np.frombuffer(self._file.read(across * _LABEL.itemsize), _LABEL)[::step]
        return part

    def _tiles(self, step: int, dtype: LabelType) -> Iterator[Labels]:
        """Yield the tiles of one level, row by row. They take every `step`-th pixel: labels cannot be averaged."""
        height, width = self._shape
        # Reading several tiles at once needs fewer reads. Reading whole rows would need more memory on a wider slide.
        size_hw = TIFF_TILE_PX * step, TIFF_TILE_PX * step * TILES_PER_READ
        for top in range(0, height, size_hw[0]):
            for left in range(0, width, size_hw[1]):
                part = self._part(top, left, size_hw, step, dtype)
                for start in range(0, part.shape[1], TIFF_TILE_PX):
                    tile = part[:, start : start + TIFF_TILE_PX]
                    yield np.pad(tile, [(0, TIFF_TILE_PX - length) for length in tile.shape])

    def _write_pyramid(self, dtype: LabelType) -> None:
        height, width = self._shape
        levels = max(int(np.ceil(np.log2(max(height, width) / TIFF_TILE_PX))), 0)
        # The same labels must give the same bytes. Without this UUID, tifffile would write a random one.
        digest = hashlib.md5(f"{self._grid.source.path.name} {self._last}".encode(), usedforsecurity=False).hexdigest()
        metadata = {"axes": "YX", "UUID": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"}
        path = self._path.with_name(f"{self._path.name}.ome.tif")
        with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
            for level in range(levels + 1):
                step = 1 << level
                writer.write(
                    self._tiles(step, dtype),
                    shape=(-(-height // step), -(-width // step)),
                    dtype=dtype,
                    tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                    compression="zlib",
                    photometric="minisblack",
                    subifds=levels if level == 0 else None,
                    subfiletype=0 if level == 0 else 1,
                    metadata=metadata if level == 0 else None,
                    software="",
                )


class OverlayPicture:
    """Writes a small picture of the image with the outlines of its objects.

    Args:
        path: The file to write.
        grid: The image.
        preview: uint8 (H, W, 3), RGB, the image at low resolution.
    """

    def __init__(self, path: Path, grid: WorkingGrid, preview: NDArray[np.uint8]) -> None:
        self._path = path
        self._picture = preview.copy()
        self._region = np.array(grid.region[:2], np.float64)
        self._factors = np.array([preview.shape[1] / grid.region[2], preview.shape[0] / grid.region[3]])

    def add(self, item: PlacedObject) -> None:
        """Draw one object."""
        color = item.found.kind.color if item.found.kind else NO_CLASS_COLOR
        for outer, holes in item.parts:
            for ring in (outer, *holes):
                # cv2 takes fixed-point coordinates here, with four binary digits after the point.
                points = np.round((ring - self._region) * self._factors * 16 - 8).astype(np.int32)
                cv2.polylines(self._picture, [points], True, color, 1, cv2.LINE_AA, 4)

    def close(self) -> None:
        """Write the file."""
        Image.fromarray(self._picture).save(self._path, quality=90)

    def discard(self) -> None:
        """Write nothing."""
