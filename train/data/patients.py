"""Choose training patients. The choices of one seed are nested: a larger one has all patients of a smaller one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.store.store import Store


def patients_in_order(store: Store, tiles: NDArray[np.int64], seed: int) -> list[str]:
    """Return the patients of some tiles in the random order of a seed."""
    names = sorted(set(store.column("tiles/patient")[tiles].tolist()))
    return np.random.default_rng(seed).permutation(names).tolist()


def tiles_of_patients(store: Store, tiles: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the tiles of the first patients in the order of a seed.

    Args:
        store: The store.
        tiles: Indices of the tiles to choose from, int64 (N,).
        count: Number of patients.
        seed: Seed of the order of the patients.

    Raises:
        ConfigError: There are fewer patients.
    """
    names = patients_in_order(store, tiles, seed)
    if count > len(names):
        raise ConfigError("patients", f"is {count}, but {store.path} has {len(names)} training patients", "use fewer")
    return tiles[np.isin(store.column("tiles/patient")[tiles], names[:count])]
