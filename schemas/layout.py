"""The arrays of a store: paths, dtypes, shapes and dimension names (Zarr v3, schema version 1; 2 with sequences).

Axes: N tiles, M objects, S pixels per side of a tile, P positive points per object, Q negative points per object.
Arrays are H, W; coordinates are x, y. A coordinate is the index of a pixel at its center, 0 to S-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.bits import BIT_ORDER
from schemas.prompt_kinds import POINT_SETS, PointCounts, PointSet

SCHEMA_VERSION = 1
"""Version of a store without sequences."""

SEQUENCE_SCHEMA_VERSION = 2
"""Version of a store with sequences: three more columns tell the frame of each tile and the track of each object."""

ATTRIBUTES_KEY = "bcss"

PIXEL_ARRAYS = ("images", "labels", "ignore", "segments")
"""The arrays with one chunk for each row; all other arrays are columns."""

Axis = Literal["tile", "object", "tile_bound"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store.

    Attributes:
        path: Path in the group.
        dtype: A NumPy dtype name, or `str`.
        axis: What its rows are: tiles, objects, or the N+1 offsets that divide the objects by tile.
        row_shape: Shape of one row.
        row_dimensions: Dimension names of one row.
    """

    path: str
    dtype: str
    axis: Axis
    row_shape: tuple[int, ...] = ()
    row_dimensions: tuple[str, ...] = ()

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """The dimension names of the whole array."""
        return (self.axis, *self.row_dimensions)


def array_specs(
    tile_size_px: int,
    label_dtype: str,
    counts: PointCounts,
    object_kind: str = "label",
    *,
    has_sequences: bool = False,
    point_sets: Mapping[str, PointSet] = POINT_SETS,
) -> list[ArraySpec]:
    """List every array of a store.

    Args:
        tile_size_px: S, a multiple of 8.
        label_dtype: `uint8` or `uint16`.
        counts: How many points each object has.
        object_kind: `label`, `component` or `instance`; a store of instances also keeps their ids from the source.
        has_sequences: Whether the tiles are frames of sequences.
        point_sets: The sets of points that it keeps, by name.
    """
    size = tile_size_px
    packed = ((size, size // 8), ("y", "x_byte"))
    prompts: list[ArraySpec] = []
    for points in point_sets.values():
        columns, dimension = points.columns(counts), f"{points.name}_point"
        prompts.append(ArraySpec(points.coords_path, "float32", "object", (columns, 2), (dimension, "xy")))
        prompts.append(ArraySpec(points.labels_path, "int32", "object", (columns,), (dimension,)))
    of_instances = [ArraySpec("objects/source_id", "int64", "object")] if object_kind == "instance" else []
    tracks, frames = list[ArraySpec](), list[ArraySpec]()
    if has_sequences:
        tracks = [ArraySpec("objects/track", "int32", "object")]
        frames = [ArraySpec(f"tiles/{name}", "int32", "tile") for name in ("sequence", "frame_number")]
    return [
        ArraySpec("images", "uint8", "tile", (size, size, 3), ("y", "x", "channel")),
        ArraySpec("labels", label_dtype, "tile", (size, size), ("y", "x")),
        ArraySpec("ignore", "uint8", "tile", *packed),
        ArraySpec("segments", "uint8", "object", *packed),
        ArraySpec("objects/tile_index", "int64", "object"),
        ArraySpec("objects/object_id", "int32", "object"),
        ArraySpec("objects/roi_component", "int32", "object"),
        ArraySpec("objects/class_id", "int32", "object"),
        ArraySpec("objects/area_px", "int32", "object"),
        ArraySpec("objects/box_xyxy", "int32", "object", (4,), ("corner",)),
        ArraySpec("objects/touches_edge", "bool", "object"),
        *of_instances,
        *tracks,
        *prompts,
        ArraySpec("tiles/frame_id", "str", "tile"),
        ArraySpec("tiles/patient", "str", "tile"),
        ArraySpec("tiles/institution", "str", "tile"),
        ArraySpec("tiles/split", "str", "tile"),
        ArraySpec("tiles/origin_xy", "int32", "tile", (2,), ("xy",)),
        ArraySpec("tiles/scale_xy", "float64", "tile", (2,), ("xy",)),
        ArraySpec("tiles/roi_size_xy", "int32", "tile", (2,), ("xy",)),
        *frames,
        ArraySpec("tiles/object_offsets", "int64", "tile_bound"),
    ]


def packing_attributes(tile_size_px: int) -> dict[str, str | int]:
    """Attributes of a packed array: the packed axis, the order of bits in a byte, and the number of pixels in a row."""
    return {"axis": "x", "bitorder": BIT_ORDER, "width": tile_size_px}
