"""Digests of all that a store's reader gives, to hold a later reader to it.

    python tests/tools/store_digests.py STORE

prints them as JSON. It needs only `schemas.open_store` from the project, so that it runs with the code of any revision
that is on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from schemas import open_store

PIXELS = {"images": "image", "labels": "labels", "ignore": "ignore", "segments": "segments"}
"""The pixel arrays, and what they are called in a record."""


def digests_of(path: Path) -> dict[str, str]:
    """SHA-256 of each array as it is read, unpacked and in the order of tiles, and of the prompts of each kind."""
    store = open_store(path)
    records = [store[index] for index in range(len(store))]
    found = {name: _digest([getattr(record, field) for record in records]) for name, field in PIXELS.items()}
    arrays = {name for name, node in zarr.open_group(path, mode="r").members(None) if isinstance(node, zarr.Array)}
    found |= {name: _digest([store.column(name)]) for name in sorted(arrays - PIXELS.keys())}
    for kind in ("centroid", "multi_point", "box"):
        for negatives in (False, True):
            parts: list[NDArray[Any]] = []
            for index in range(len(store)):
                for object_id, prompt in store.prompts(index, kind, negatives=negatives).items():
                    parts += [np.array([index, object_id]), prompt["point_coords"], prompt["point_labels"]]
            found[f"{kind}, {'with' if negatives else 'without'} negatives"] = _digest(parts)
    return found


def _digest(parts: list[NDArray[Any]]) -> str:
    """SHA-256 of arrays with their types and shapes; text by its characters, independent of its NumPy type."""
    digest = hashlib.sha256()
    for part in parts:
        if part.dtype.kind in "OTU":
            digest.update(f"text {part.shape};{json.dumps(part.tolist())}".encode())
        else:
            digest.update(f"{part.dtype} {part.shape};".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    json.dump(digests_of(Path(sys.argv[1])), sys.stdout, indent=1)
