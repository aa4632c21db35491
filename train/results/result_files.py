"""Write the objects of one image to files of all wanted formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from train.choices import ResultFormat
from train.results.placed_object import PlacedObject
from train.results.raster_files import LabelImage, OverlayPicture
from train.results.vector_files import CocoFile, CsvFile, GeoJsonFile, ObjectWriter
from train.slide.working_grid import WorkingGrid


def open_writers(
    folder: Path, stem: str, grid: WorkingGrid, formats: Collection[ResultFormat], categories: Mapping[str, int]
) -> list[ObjectWriter]:
    """Open a writer for each wanted format.

    Args:
        folder: The folder for the files.
        stem: Stem of the image, with which their names begin.
        grid: The image.
        formats: The wanted formats.
        categories: COCO's id of each class that objects may have; see `category_ids`.
    """
    makers: dict[ResultFormat, Callable[[], ObjectWriter]] = {
        "geojson": lambda: GeoJsonFile(folder / f"{stem}.geojson", grid.source.qupath_origin_xy),
        "masks": lambda: LabelImage(folder / f"{stem}.labels", grid),
        "coco": lambda: CocoFile(folder / f"{stem}.coco.json", grid, categories),
        "csv": lambda: CsvFile(folder / f"{stem}.csv"),
        "overlay": lambda: OverlayPicture(folder / f"{stem}.overlay.jpg", grid, grid.preview),
    }
    found: list[ObjectWriter] = []
    try:
        for name, make in makers.items():
            if name in formats:
                found.append(make())
    except BaseException:
        for writer in found:
            writer.discard()
        raise
    return found


def write_all(writers: Sequence[ObjectWriter], objects: Iterable[PlacedObject]) -> Counter[str]:
    """Pass each object to all writers, close them, and count the objects by class; without a class it is empty."""
    classes: Counter[str] = Counter()
    unfinished = list(writers)
    try:
        for item in objects:
            classes[item.found.kind.name if item.found.kind else ""] += 1
            for writer in writers:
                writer.add(item)
        while unfinished:
            unfinished[-1].close()
            unfinished.pop()
    finally:
        for writer in unfinished:
            writer.discard()
    return classes
