"""What both stages agree on: the store's layout, class codes, typed records, errors, and the read-only store."""

from importlib import import_module
from typing import TYPE_CHECKING

from schemas.errors import BcssError, CheckpointError, ConfigError, SourceError, StoreError, TrainingError

if TYPE_CHECKING:
    from schemas.record import Record
    from schemas.store.store import Store, open_store

__all__ = [
    "BcssError",
    "CheckpointError",
    "ConfigError",
    "Record",
    "SourceError",
    "Store",
    "StoreError",
    "TrainingError",
    "open_store",
]

# Zarr takes half a second to import, which `--help` must not wait for.
_LAZY = {"Record": "schemas.record", "Store": "schemas.store.store", "open_store": "schemas.store.store"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'schemas' has no attribute {name!r}")
