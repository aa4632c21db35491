"""Windows of frames: which tiles follow each other in a sequence, and the samples of the later ones.

Axes: W windows, T frames, O objects, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.store.store import Store
from schemas.store.tile import Tile
from train.transforms.color import DRAWS as COLOR_DRAWS
from train.transforms.color import GREY_DRAW
from train.transforms.sample import Sample

OWN_COLOR_SHARE = 0.2
"""How much of a later frame's color change is its own; the rest is that of the first frame."""


@dataclass(frozen=True)
class Windows:
    """The windows that a run trains on.

    Attributes:
        tiles: Indices of the tiles of each window, int64 (W, T), in ascending order of the first one. The first tile
            has an object, and no two windows have the same first tile.
    """

    tiles: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index of the first tile of each window, int64 (W,)."""
        return self.tiles[:, 0]

    def of(self, start: int) -> list[int]:
        """Return the tiles of the window that starts with a tile."""
        return self.tiles[np.searchsorted(self.starts, start)].tolist()


def find_windows(store: Store, starts: NDArray[np.int64], frames: int, stride: int) -> Windows:
    """List the windows of a store.

    Args:
        store: The store.
        starts: Indices of the tiles that a window may start with, int64 (N,).
        frames: Number of frames in a window.
        stride: How many frames of the sequence one frame of a window is after the frame before.

    Raises:
        ConfigError: The store has no sequences, one of them is shorter than a window, or no window has such a
            start.
    """
    if not store.sequences:
        raise ConfigError(f"--frames {frames}", f"{store.path} has no sequences", "build it with `--sequences`")
    allowed, span = set(starts.tolist()), (frames - 1) * stride + 1
    in_training = set(store.column("tiles/sequence")[starts].tolist())
    windows: list[list[int]] = []
    for number, name in enumerate(store.sequences):
        if number not in in_training:
            continue
        tiles = [frame.tiles for frame in store.sequence(name)]
        if len(tiles) < span:
            needed = f"a window needs {span}" if stride > 1 else "a window needs more"
            what = f"the sequence {name} has {len(tiles)} frames, and {needed}"
            raise ConfigError(f"--frames {frames}", what, "lower --frames or --frame-stride, or leave the sequence out")
        for first in range(len(tiles) - span + 1):
            columns = zip(*tiles[first : first + span : stride], strict=True)
            windows += [list(column) for column in columns if column[0] in allowed]
    if not windows:
        what = "no window starts with a frame that shows an object"
        raise ConfigError(f"--frames {frames}", what, "lower --frames or --frame-stride")
    return Windows(np.array(sorted(windows), np.int64))


def reversed_if_drawn(store: Store, tiles: Sequence[int], share: float, draw: float) -> list[int]:
    """Return the tiles of a window, in reverse order if the draw says so and the last frame shows an object.

    Args:
        store: The store.
        tiles: The tiles of the window.
        share: Share of the windows that are reversed.
        draw: A random number in [0, 1).
    """
    return list(tiles[::-1] if draw < share and store.tile(tiles[-1]).classes else tiles)


def with_later_frames(sample: Sample, store: Store, tiles: Sequence[int]) -> Sample:
    """Add the later frames of a window to the sample of its first frame.

    Args:
        sample: The sample of the first frame.
        store: The store.
        tiles: Indices of the tiles of the later frames.

    Returns:
        The sample; in each later frame, the masks of hidden objects are empty.
    """
    tracks = store.tile(sample.tile_index).tracks
    wanted = [tracks[object_id] for object_id in sample.object_ids.tolist()]
    return replace(sample, later=tuple(_later_frame(sample, store.tile(index), wanted) for index in tiles))


def with_frame_draws(sample: Sample, corrected_frames: int, generator: np.random.Generator) -> Sample:
    """Give later frames their random numbers: own clicks, and colors near those of the first frame.

    Args:
        sample: The sample of a window, with the draws of its first frame.
        corrected_frames: Number of frames that get correction clicks: the first, and later ones that are drawn.
        generator: The source of all random numbers.
    """
    assert sample.click_draws is not None
    assert sample.color_draws is not None
    # Nothing is known to be wrong in an unlabeled frame, so it gets no click.
    known = [number for number, frame in enumerate(sample.later, start=1) if not frame.ignore.numpy().all()]
    drawn = generator.choice(known, min(corrected_frames - 1, len(known)), replace=False)
    later: list[Sample] = []
    for frame in sample.later:
        clicks = torch.from_numpy(generator.random(tuple(sample.click_draws.shape), np.float32))
        own = torch.from_numpy(generator.random(COLOR_DRAWS, np.float32))
        colors = torch.lerp(sample.color_draws, own, OWN_COLOR_SHARE)
        # Either all frames of a window are gray, or none is.
        colors[GREY_DRAW] = sample.color_draws[GREY_DRAW]
        later.append(frame.with_draws(clicks, colors))
    return replace(sample, later=tuple(later), corrected=(0, *sorted(drawn.tolist())))


def _later_frame(first: Sample, tile: Tile, wanted: list[int]) -> Sample:
    """Read a later frame with the objects of the first one, whose tracks are `wanted`."""
    rows = {track: row for row, track in enumerate(wanted)}
    shown = {object_id: rows[track] for object_id, track in tile.tracks.items() if track in rows}
    segments = torch.zeros(len(wanted), *tile.ignore.shape, dtype=torch.bool)
    if shown:
        segments[list(shown.values())] = torch.from_numpy(tile.segments(shown))
    return Sample(
        tile_index=tile.index,
        image=torch.from_numpy(tile.image).permute(2, 0, 1),
        segments=segments,
        ignore=torch.from_numpy(tile.ignore),
        point_coords=torch.zeros(len(wanted), 0, 2),
        point_labels=torch.zeros(len(wanted), 0, dtype=torch.int32),
        object_ids=first.object_ids,
        class_ids=first.class_ids,
        may_hide=True,
    )
