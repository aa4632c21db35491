"""Write objects as GeoJSON for QuPath, as COCO, and as CSV.

Objects are written one by one, so memory use does not grow with their number. Coordinates are x, y in pixels of
level 0.
Sources: RFC 7946 and the fields that QuPath reads; the description of the COCO format.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from train.results.categories import NO_CLASS
from train.results.placed_object import PlacedObject, Ring
from train.slide.working_grid import WorkingGrid

_NAMESPACE = uuid.UUID("0b0f4b7c-6a53-4b5c-9f0a-4d2f5f1f8a51")
"""Namespace for the UUIDs of features. A UUID depends on this and the content, so equal runs give equal files."""


class ObjectWriter(Protocol):
    """Writes the objects of one image to a file; it must be closed after the last object."""

    def add(self, item: PlacedObject) -> None:
        """Write one object."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...

    def discard(self) -> None:
        """Leave the file unfinished, after a failure."""
        ...


class _JsonRows:
    """A JSON file that ends with a list, which is written row by row."""

    def __init__(self, path: Path, head: str) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._file.write(head)
        self._before = "\n"

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(self._before + json.dumps(row))
        self._before = ",\n"

    def close(self) -> None:
        self._file.write("\n]}\n")
        self._file.close()

    def discard(self) -> None:
        # If the disk is full, the unwritten rest is dropped.
        with suppress(OSError):
            self._file.close()


class GeoJsonFile:
    """Writes a GeoJSON file that QuPath can import.

    Args:
        path: The file to write.
        origin_xy: The pixel of level 0 from which QuPath counts.
    """

    def __init__(self, path: Path, origin_xy: tuple[int, int] = (0, 0)) -> None:
        self._origin_xy = np.array(origin_xy, np.float64)
        self._rows = _JsonRows(path, '{"type": "FeatureCollection", "features": [')

    def add(self, item: PlacedObject) -> None:
        """Write one object."""
        self._rows.add(feature(item, self._origin_xy))

    def close(self) -> None:
        """Finish the file."""
        self._rows.close()

    def discard(self) -> None:
        """Leave the file unfinished."""
        self._rows.discard()


def feature(item: PlacedObject, origin_xy: NDArray[np.float64]) -> dict[str, Any]:
    """Return an object as a GeoJSON feature, whose coordinates count from `origin_xy`."""
    polygons = [[_closed(ring - origin_xy) for ring in (outer, *holes)] for outer, holes in item.parts]
    single = len(polygons) == 1
    geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": polygons[0] if single else polygons}
    measurements: dict[str, float] = {"Area px^2": round(item.area_px, 2)}
    if item.area_um2 is not None:
        measurements["Area um^2"] = round(item.area_um2, 3)
    measurements |= {"Estimated IoU": round(item.found.iou, 4), "Stability": round(item.found.stability, 4)}
    properties: dict[str, Any] = {"objectType": "annotation", "isLocked": False, "measurements": measurements}
    if item.found.name:
        properties["name"] = item.found.name
    if item.found.kind is not None:
        properties["classification"] = {"name": item.found.kind.name, "color": list(item.found.kind.color)}
    content = json.dumps([item.number, geometry, properties], sort_keys=True)
    identity = str(uuid.uuid5(_NAMESPACE, content))
    return {"type": "Feature", "id": identity, "geometry": geometry, "properties": properties}


def _closed(ring: Ring) -> list[list[float]]:
    points = np.round(np.concatenate([ring, ring[:1]]), 2)
    return [[int(x) if x == int(x) else x, int(y) if y == int(y) else y] for x, y in points.tolist()]


class CsvFile:
    """Writes a CSV table of objects; boxes include their last pixel.

    Args:
        path: The file to write.
    """

    COLUMNS = ("object", "name", "class", "x0", "y0", "x1", "y1", "area_px", "area_um2", "iou", "stability")

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(self.COLUMNS)

    def add(self, item: PlacedObject) -> None:
        """Write one object."""
        left, top, right, bottom = item.box
        area_um2 = "" if item.area_um2 is None else f"{item.area_um2:.3f}"
        kind = item.found.kind.name if item.found.kind else ""
        box = [_plain(value) for value in (left, top, right - 1, bottom - 1)]
        scores = f"{item.found.iou:.4f}", f"{item.found.stability:.4f}"
        self._writer.writerow([item.number, item.found.name, kind, *box, _plain(item.area_px), area_um2, *scores])

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def discard(self) -> None:
        """Leave the file unfinished."""
        with suppress(OSError):
            self._file.close()


def _plain(value: float) -> str:
    """Write a number with at most two digits after the point, and never with an exponent."""
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


class CocoFile:
    """Writes a COCO file with masks as run lengths, in pixels of the grid's region at level 0.

    Args:
        path: The file to write.
        grid: The image.
        categories: The category id of each class, and of `NO_CLASS`.
    """

    def __init__(self, path: Path, grid: WorkingGrid, categories: Mapping[str, int]) -> None:
        self._grid, self._ids = grid, categories
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        image = {"id": 1, "file_name": grid.source.path.name, "width": grid.region[2], "height": grid.region[3]}
        head = f'{{"images": [{json.dumps(image)}], "categories": {json.dumps(listed)}, "annotations": ['
        self._rows = _JsonRows(path, head)

    def add(self, item: PlacedObject) -> None:
        """Write one object."""
        x, y, mask = level0_mask(item, self._grid)
        height, width = mask.shape
        row = {
            "id": item.number,
            "image_id": 1,
            "category_id": self._ids[item.found.kind.name if item.found.kind else NO_CLASS],
            "bbox": [x, y, width, height],
            "area": int(np.count_nonzero(mask)),
            "iscrowd": 0,
            "score": round(item.found.iou, 4),
            "segmentation": image_runs(mask, x, y, self._grid.region[2], self._grid.region[3]),
        }
        self._rows.add(row)

    def close(self) -> None:
        """Finish the file."""
        self._rows.close()

    def discard(self) -> None:
        """Leave the file unfinished."""
        self._rows.discard()


def level0_mask(item: PlacedObject, grid: WorkingGrid) -> tuple[int, int, NDArray[np.bool_]]:
    """Return the left, the top and the mask of an object in pixels of level 0; left and top count from the region."""
    if grid.region[2:] == grid.size_xy:
        return *item.found.origin_xy, item.found.mask
    left, top, right, bottom = item.found.box
    factors = grid.region[2] / grid.size_xy[0], grid.region[3] / grid.size_xy[1]
    x0, y0 = round(left * factors[0]), round(top * factors[1])
    x1 = min(max(round(right * factors[0]), x0 + 1), grid.region[2])
    y1 = min(max(round(bottom * factors[1]), y0 + 1), grid.region[3])
    columns = np.clip(((np.arange(x0, x1) + 0.5) / factors[0]).astype(int) - left, 0, right - left - 1)
    rows = np.clip(((np.arange(y0, y1) + 0.5) / factors[1]).astype(int) - top, 0, bottom - top - 1)
    mask = item.found.mask[np.ix_(rows, columns)]
    # Where level 0 is coarser than the grid, the outermost pixels of the box may be empty.
    filled_y, filled_x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(filled_y):
        return x0, y0, mask
    inside = mask[filled_y[0] : filled_y[-1] + 1, filled_x[0] : filled_x[-1] + 1]
    return x0 + int(filled_x[0]), y0 + int(filled_y[0]), inside


def image_runs(mask: NDArray[np.bool_], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    """Return COCO's run lengths of a mask within a large image, without making that image in memory."""
    columns = np.pad(mask.T, ((0, 0), (1, 1)))
    changes = np.diff(columns.astype(np.int8), axis=1)
    column, row = np.nonzero(changes)
    places = (x + column.astype(np.int64)) * height + y + row
    # A run that ends at the end of a column may continue in the next column.
    same = np.flatnonzero(np.diff(places) == 0)
    places = np.delete(places, np.concatenate([same, same + 1]))
    counts = np.diff(np.concatenate([[0], places, [width * height]]))
    # If the mask reaches the last pixel of the image, there is no run of background after it.
    counts = counts[:-1] if not counts[-1] else counts
    return {"size": [height, width], "counts": _compressed(counts)}


def _compressed(counts: NDArray[np.int64]) -> str:
    """Return run lengths as COCO's text, as `rleToString` of pycocotools, which takes only numbers below 2^32, does.

    From the fourth on, each count is written as the difference to the last but one, in groups of five bits. The lowest
    group comes first. 32 marks that another group follows, and 48 makes each group a printable character.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    groups: list[NDArray[np.int64]] = []
    is_open = [np.ones(len(rest), np.bool_)]
    while is_open[-1].any():
        group = rest & 31
        rest = rest >> 5
        # A number ends with the group whose highest bit is its sign.
        is_open.append(is_open[-1] & (rest != np.where(group & 16, -1, 0)))
        groups.append(group + 32 * is_open[-1] + 48)
    return bytes(np.stack(groups, 1)[np.stack(is_open[:-1], 1)].astype(np.uint8)).decode("ascii")
