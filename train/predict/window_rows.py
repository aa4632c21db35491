"""Keep the objects of each finished row of windows in a file, so that an interrupted search can continue."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np

from train.results.found_object import FoundObject


class WindowRows:
    """The files that keep the finished rows of one search.

    Args:
        folder: Folder of the files; it is created.
        digest: Digest of the model, the image and the settings. Files with another digest are not used.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder
        self._digest = hashlib.sha256(digest.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, row: int) -> list[list[FoundObject]] | None:
        """Return the objects of each window of a row; None if it is not finished."""
        path = self._path(row)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as archive:
                heads = json.loads(bytes(archive["heads"]).decode())
                bits = archive["bits"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # The file is damaged, so the row is searched and written again.
            return None
        found: list[list[FoundObject]] = []
        place = 0
        for window in heads:
            objects: list[FoundObject] = []
            for x, y, height, width, iou, stability in window:
                size = (height * width + 7) // 8
                mask = np.unpackbits(bits[place : place + size], count=height * width).reshape(height, width)
                item = FoundObject.from_mask(mask.astype(bool), (x, y), iou, stability)
                if item is None:
                    # No mask is written empty, so this file is damaged, too.
                    return None
                objects.append(item)
                place += size
            found.append(objects)
        return found

    def save(self, row: int, windows: list[list[FoundObject]]) -> None:
        """Write the objects of a finished row; no reader can see a half-written file."""
        heads = [[_head(item) for item in window] for window in windows]
        bits = [np.packbits(item.mask.ravel()) for window in windows for item in window]
        path = self._path(row)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                heads=np.frombuffer(json.dumps(heads).encode(), np.uint8),
                bits=np.concatenate(bits) if bits else np.zeros(0, np.uint8),
            )
        partial.replace(path)

    def _path(self, row: int) -> Path:
        return self._folder / f"{self._digest}-{row:06d}.npz"


def _head(item: FoundObject) -> list[float]:
    width, height = item.size_xy
    return [*item.origin_xy, height, width, item.iou, item.stability]
