"""The SHA-256 and length of every file of a store, kept in the store as columns.

`checksums/key`, `checksums/sha256` and `checksums/size_bytes` cover every file except their own and the root's
`zarr.json`, whose completion record contains a digest over the column of digests.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import zarr

from prep.files import WrittenFile, sha256_of
from schemas.errors import StoreError
from schemas.manifest import fingerprint
from schemas.store.codecs import ZSTD
from schemas.store.location import is_remote, object_store, remote_errors
from schemas.store.store import Store


def write_checksums(group: zarr.Group, store_dir: Path, written: list[WrittenFile]) -> str:
    """Write the columns.

    Args:
        group: The store.
        store_dir: Its folder.
        written: Files whose digest is already known; all other files are read.

    Returns:
        SHA-256 over the column of digests, in hexadecimal.
    """
    known = {file.key: file for file in written}
    keys = sorted(
        path.relative_to(store_dir).as_posix()
        for path in store_dir.rglob("*")
        if path.is_file() and path != store_dir / "zarr.json"
    )
    digests = [known[key].sha256 if key in known else sha256_of(store_dir / key) for key in keys]
    columns = {
        "key": np.array(keys, object),
        "sha256": np.array(digests, object),
        "size_bytes": np.array([(store_dir / key).stat().st_size for key in keys], np.int64),
    }
    for name, values in columns.items():
        array = group.create_array(
            f"checksums/{name}",
            shape=values.shape,
            dtype="int64" if name == "size_bytes" else str,
            chunks=(max(len(values), 1),),
            **ZSTD.array_settings,
            dimension_names=("file",),
        )
        array[:] = values
    return fingerprint(digests)


def check_sizes(store: Store) -> None:
    """Check that every file exists and has its recorded length; no pixel is read.

    Raises:
        StoreError: A file is missing or has another length.
    """
    keys, sizes = (store.column(f"checksums/{name}").tolist() for name in ("key", "size_bytes"))
    found = _sizes_of(store.path, keys)
    # In a damaged store the columns may differ in length, so a key may have no size, or a size no key.
    for key, size in zip_longest(keys, sizes):
        if found.get(key) != size:
            what = f"{key} has {found[key]} bytes, not {size}" if key in found else f"{key} is missing"
            raise StoreError(store.path, f"is damaged ({what})", "give --overwrite to build it again")


def _sizes_of(location: str, keys: list[str]) -> dict[str, int]:
    """Return the length in bytes of each existing file of a store, by its path in the store."""
    if is_remote(location):
        import obstore

        with remote_errors(location):
            return {entry["path"]: entry["size"] for page in obstore.list(object_store(location)) for entry in page}
    paths = {key: Path(location, key) for key in keys}
    return {key: path.stat().st_size for key, path in paths.items() if path.is_file()}
