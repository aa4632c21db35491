"""Report a failed read of a store: whether a device, a server or damage caused it, and which part it affects."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from schemas.errors import BcssError, StoreError, unreadable
from schemas.store.location import remote_errors

LIST_DAMAGE = "`bcss-prep verify` lists all damage"
"""Remedy for damaged data: more may be damaged than was read."""


@contextmanager
def reading(where: str, damage: str | None = None, remedy: str = LIST_DAMAGE) -> Generator[None]:
    """Turn every failure in the `with` block into an error of this project.

    Args:
        where: The part of the store that is read, for the message.
        damage: The message for a failure that neither a device nor a server caused; unless given, it says that the part
            cannot be decoded, and why.
        remedy: What to do about damage.

    Raises:
        UnreachableError: A device or a server fails.
        StoreError: A file is missing or damaged.
    """
    try:
        with remote_errors(where):
            yield
    except BcssError:
        raise
    except OSError as error:
        raise unreadable(where, error) from error
    except Exception as error:
        # zarr and numcodecs have no common exception: damaged metadata raises AttributeError, RecursionError and more,
        # a failed checksum or a short chunk ValueError or RuntimeError.
        raise StoreError(where, damage or f"cannot be decoded ({error})", remedy) from error
