"""Print the summary of a store as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from prep.inspect import ClassCount, StoreSummary
from schemas.command.console import as_markup
from schemas.manifest import SPLITS


def print_classes(counts: Sequence[ClassCount]) -> None:
    """Print the objects of each class in each split."""
    table = Table("class", "code", *SPLITS, "Mpx", "in tiles", title="objects by class and split")
    for name, code in dict.fromkeys((count.class_name, count.class_id) for count in counts):
        of_class = {count.split: count for count in counts if count.class_id == code}
        objects = (str(of_class[split].objects) if split in of_class else "-" for split in SPLITS)
        once = [count.roi_pixels for count in of_class.values()]
        area = "-" if None in once else _mega(sum(filter(None, once)))
        pixels = sum(count.pixels for count in of_class.values())
        table.add_row(as_markup(name), str(code), *objects, area, _mega(pixels))
    Console(emoji=False).print(table)


def print_summary(summary: StoreSummary) -> None:
    """Print everything that `bcss-prep inspect` shows."""
    console = Console(emoji=False)
    console.print(
        f"[bold]{as_markup(summary.path)}[/]: {summary.tiles} tiles of {summary.tile_size_px} px, "
        f"{summary.objects} {summary.object_kind} objects, {_mega(summary.stored_bytes)} MB, "
        f"written by bcss-sam2 {as_markup(summary.tool_version)}"
    )
    console.print(
        f"{summary.ignored_share:.0%} of the pixels are ignored: they count neither as object nor as background"
    )
    if summary.sequences:
        console.print(
            f"{summary.sequences} sequences with {summary.frames} frames, of which {summary.labelled_frames} have a "
            f"mask, and {summary.tracks} objects that are followed through the frames"
        )
    splits = Table("split", "tiles", "frames" if summary.sequences else "ROIs", "patients")
    for split in summary.splits:
        splits.add_row(split.split, str(split.tiles), str(split.rois), str(split.patients))
    console.print(splits)
    print_classes(summary.classes)
    arrays = Table("array", "shape", "type", "MB", "of raw")
    for array in summary.arrays:
        share = array.stored_bytes / array.raw_bytes if array.raw_bytes else 0.0
        shape = " x ".join(str(side) for side in array.shape)
        arrays.add_row(array.name, shape, array.dtype, _mega(array.stored_bytes), f"{share:.0%}")
    console.print(arrays)
    points = ", ".join(f"{mean:.1f} {name}" for name, mean in summary.prompts.items())
    console.print(f"mean points of an object: {points}; and a box")
    settings = {key: value for key, value in summary.config.items() if value not in ([], None)}
    console.print(as_markup("settings: " + ", ".join(f"{k}={v}" for k, v in settings.items())), highlight=False)
    if summary.kept_out:
        console.print(f"left out, since they contain no selected class: {as_markup(', '.join(summary.kept_out))}")


def _mega(number: float) -> str:
    """Write a number in millions; one below a million with two significant digits."""
    millions = number / 1e6
    if millions >= 1 or not number:
        return f"{millions:.1f}"
    return f"{millions:.2g}" if number >= 100 else "< 0.0001"
