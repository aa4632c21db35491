"""The contract between `prep` and `train`: the store's layout and reader, class codes, records, prompts and errors."""

from importlib import import_module
from typing import TYPE_CHECKING

from schemas.errors import BcssError, CheckpointError, ConfigError, SourceError, StoreError, TrainingError

if TYPE_CHECKING:
    from schemas.record import Record
    from schemas.store.sequence import SequenceFrame
    from schemas.store.store import Store, open_store

__all__ = [
    "BcssError",
    "CheckpointError",
    "ConfigError",
    "Record",
    "SequenceFrame",
    "SourceError",
    "Store",
    "StoreError",
    "TrainingError",
    "open_store",
]

# zarr takes half a second to import, and `--help` must not wait for it.
_LAZY = {
    "Record": "schemas.record",
    "SequenceFrame": "schemas.store.sequence",
    "Store": "schemas.store.store",
    "open_store": "schemas.store.store",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'schemas' has no attribute {name!r}")
