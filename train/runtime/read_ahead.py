"""Read in threads what is needed next, while the main thread works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Place = TypeVar("Place")
Read = TypeVar("Read")


def read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[Place], Read], places: Iterable[Place], ahead: int
) -> Iterator[tuple[Place, Read]]:
    """Yield places with what is read there, in order; an error of `read` is raised when its place comes.

    Args:
        pool: The threads that read.
        read: Reads one place.
        places: What to read; only `ahead` places more than needed are taken from it.
        ahead: Number of places that are read ahead; 0 reads each when it is needed.
    """
    waiting: deque[tuple[Place, Future[Read]]] = deque()

    def first() -> tuple[Place, Read]:
        place, result = waiting.popleft()
        return place, result.result()

    for place in places:
        waiting.append((place, pool.submit(read, place)))
        if len(waiting) > ahead:
            yield first()
    while waiting:
        yield first()
