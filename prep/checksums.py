"""One SHA-256 for every file of a store, kept in the store as columns.

`checksums/key`, `checksums/sha256` and `checksums/size_bytes` cover every file but themselves and the root's
`zarr.json`, whose completion record holds a digest over the column of digests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from prep.shards import WrittenFile
from prep.stage import sha256_of
from schemas.manifest import fingerprint


def write_checksums(group: zarr.Group, store_dir: Path, written: list[WrittenFile]) -> str:
    """Write the columns and return the digest over the one of digests.

    Args:
        group: The store.
        store_dir: Its folder.
        written: Files whose digest is known since they were written; the others are read.
    """
    known = {file.path: file for file in written}
    files = sorted(path for path in store_dir.rglob("*") if path.is_file() and path != store_dir / "zarr.json")
    columns = {
        "key": np.array([path.relative_to(store_dir).as_posix() for path in files], object),
        "sha256": np.array([known[path].sha256 if path in known else sha256_of(path) for path in files], object),
        "size_bytes": np.array([path.stat().st_size for path in files], np.int64),
    }
    for name, values in columns.items():
        array = group.create_array(
            f"checksums/{name}",
            shape=values.shape,
            dtype="int64" if name == "size_bytes" else str,
            chunks=(max(len(values), 1),),
            dimension_names=("file",),
        )
        array[:] = values
    return fingerprint([str(digest) for digest in columns["sha256"]])
