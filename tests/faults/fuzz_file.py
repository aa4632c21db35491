"""Try mutations of a valid file, and randomly drawn texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.guard import Guard, bounded_memory
from tests.faults.mutations import mutated


def fuzz_file(
    inputs: int, path: Path, read: Callable[[Path], object], valid: bytes, texts: st.SearchStrategy[bytes]
) -> Guard:
    """Try mutations of a valid file, and an equal number of randomly drawn texts."""
    guard = Guard(path.parent)

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        guard.attempt(lambda: read(path), data[:300])

    attempt(valid)
    assert guard.accepted == 1
    with bounded_memory():
        for number in range(inputs // 2):
            attempt(mutated(valid, random.Random(number)))
        settings(max_examples=inputs - inputs // 2)(given(texts)(attempt))()
    return guard
