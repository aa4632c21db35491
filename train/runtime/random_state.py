"""States of all random generators of a process, as plain values that a checkpoint can hold.

Training draws nothing from these generators, because every draw is made from (seed, epoch, tile). Their states are
saved in case a layer that draws, such as dropout, is added.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def rng_states() -> dict[str, Any]:
    """Return the states of the generators of Python, NumPy, torch and each CUDA device."""
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), int(place), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()),
    }


def set_rng_states(states: dict[str, Any]) -> None:
    """Restore the states that `rng_states` returned; skip CUDA devices that no longer exist."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
