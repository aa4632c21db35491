"""The objects of sequences, once all frames are prepared: each keeps its class, and a sequence may have none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from prep.write.roi_folder import RoiFolder
from schemas.errors import SourceError, joined

logger = logging.getLogger(__name__)


def kept_sequences(folders: list[RoiFolder]) -> tuple[str, ...]:
    """Return the names of the sequences with an object in any frame, in the order of the store."""
    names = (folder.source.sequence for folder in folders if folder.source.objects)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def check_tracks(source_dir: Path, folders: list[RoiFolder]) -> None:
    """Check that each object has one class in all frames, and warn of sequences without an object.

    Args:
        source_dir: The data set's folder, for messages.
        folders: All frames, in the order of the store.

    Raises:
        SourceError: An object changes its class.
    """
    problems = list(_changed_classes(folders))
    if problems:
        raise joined(source_dir, problems)
    kept = set(kept_sequences(folders))
    names = dict.fromkeys(folder.source.sequence for folder in folders if folder.source.sequence is not None)
    empty = [name for name in names if name not in kept]
    if empty:
        logger.warning("sequences without an object are left out: %d, such as %s", len(empty), empty[0])


def _changed_classes(folders: list[RoiFolder]) -> Iterator[SourceError]:
    """Yield an error for each object that changes its class, where it changes first."""
    first: dict[tuple[str | None, int], tuple[int, str | None]] = {}
    reported: set[tuple[str | None, int]] = set()
    for folder in folders:
        source = folder.source
        for track, code in folder.class_of_track.items():
            key = (source.sequence, track)
            before, mask = first.setdefault(key, (code, source.mask))
            if code != before and key not in reported:
                reported.add(key)
                what = f"gives the object {track} the class {code}, but {mask} gives it the class {before}"
                yield SourceError(source.mask, what, "give an object the same class in all frames")
