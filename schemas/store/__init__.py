"""Read a store by tile or column; imports `schemas.codec_names`, `errors`, `manifest`, `points`, `record` and below."""

from importlib import import_module


def __getattr__(name: str) -> object:
    # Users import these two from here. zarr takes half a second to import, so the module is imported on first use.
    if name in ("Store", "open_store"):
        return getattr(import_module("schemas.store.store"), name)
    raise AttributeError(f"module 'schemas.store' has no attribute {name!r}")
