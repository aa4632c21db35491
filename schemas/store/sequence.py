"""The frames of a sequence in a store, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import StoreError

if TYPE_CHECKING:
    from schemas.store.store import Store


@dataclass(frozen=True)
class SequenceFrame:
    """One frame of a sequence.

    Attributes:
        number: Its number in the source, such as 5 for `00005.jpg`.
        tiles: Indices of its tiles in the store, one for each window; all frames have the same windows in the same
            order.
        labelled: Whether the frame has a mask. All pixels of an unlabeled frame are ignored.
    """

    number: int
    tiles: tuple[int, ...]
    labelled: bool


def frames_of(store: Store, name: str) -> tuple[SequenceFrame, ...]:
    """Return the frames of a sequence in the order of their numbers.

    Args:
        store: The store.
        name: Name of the sequence.

    Raises:
        StoreError: The store has no such sequence, or its columns are damaged.
    """
    if name not in store.sequences:
        remedy = f"choose one of {', '.join(store.sequences[:5])}" if store.sequences else "build with --sequences"
        raise StoreError(store.path, f"has no sequence {name!r}", remedy)
    index = store.sequences.index(name)
    start, end = np.searchsorted(store.column("tiles/sequence"), [index, index + 1]).tolist()
    # The check of this column makes sure that all frames have the same windows.
    numbers: list[int] = store.column("tiles/frame_number")[start:end].tolist()
    frame_ids: list[str] = store.column("tiles/frame_id")[start:end].tolist()
    in_frame = numbers.count(numbers[0])
    return tuple(
        SequenceFrame(
            numbers[first],
            tuple(range(start + first, start + first + in_frame)),
            store.source(frame_ids[first]).mask is not None,
        )
        for first in range(0, len(numbers), in_frame)
    )
