"""The read-only store: opening it, its tiles, and how rows are read from files; may import `schemas` alone."""

from importlib import import_module


def __getattr__(name: str) -> object:
    # Users import these two from here; Zarr takes half a second, so the module waits until one is asked for.
    if name in ("Store", "open_store"):
        return getattr(import_module("schemas.store.store"), name)
    raise AttributeError(f"module 'schemas.store' has no attribute {name!r}")
