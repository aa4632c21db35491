"""A store for tests of commands."""

from __future__ import annotations

import pytest

from schemas.store.store import Store


@pytest.fixture(scope="session")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store
