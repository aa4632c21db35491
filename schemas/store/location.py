"""The location of a store: a folder, or the URL of an object store (`s3://`, `gs://`, `az://`), read with obstore.

Credentials and endpoints come from the environment, as for other programs (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
...).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlparse

from schemas.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    import zarr.abc.store
    from obstore.store import ObjectStore, RetryConfig

RETRY_S = 30
"""Seconds for which a failed request is repeated: a restarted server takes some seconds."""

RETRY: RetryConfig = {
    # By default obstore retries ten times, which takes only two seconds if no server listens. Here only the time limits
    # the retries.
    "max_retries": 1000,
    "retry_timeout": timedelta(seconds=RETRY_S),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
"""How obstore repeats a failed request."""

_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "http", "https")


def normal_location(location: str | Path) -> str:
    """Remove trailing slashes from a path or URL, and turn a `file://` URL into a path."""
    text = str(location)
    parsed = urlparse(text)
    if parsed.scheme == "file":
        return unquote(parsed.path).rstrip("/") or "/"
    return text.rstrip("/") or "/"


def is_remote(location: str) -> bool:
    """Whether a location is the URL of an object store."""
    return urlparse(location).scheme in _SCHEMES and "://" in location


def object_store(location: str) -> ObjectStore:
    """Open an object store whose root is the location.

    Raises:
        ConfigError: obstore is not installed or refuses the URL, or the URL has a query or a fragment.
    """
    parsed = urlparse(location)
    if parsed.query or parsed.fragment:
        # obstore would leave out this part, and `run#2` would be the same store as `run#1`.
        raise ConfigError(
            location, "has a ? or #, which names of stores in a bucket cannot have", "choose another name"
        )
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigError(location, "needs the obstore package", "pip install 'bcss-sam2[s3]'") from error
    try:
        return from_url(location, retry_config=RETRY)
    except (BaseError, ValueError) as error:
        raise ConfigError(location, f"is not an object store ({error})", "check the URL and the credentials") from error


def zarr_location(location: str) -> zarr.abc.store.Store:
    """Return the zarr store to read a location with."""
    if not is_remote(location):
        from schemas.store.local_folder import LocalFolder

        return LocalFolder(location, read_only=True)
    from zarr.storage import ObjectStore as ZarrObjectStore

    return ZarrObjectStore(cast("Any", object_store(location)), read_only=True)


@contextmanager
def remote_errors(location: str) -> Generator[None]:
    """Turn the failures of an object store, such as no answer or no permission, into an error of this project.

    By then, obstore has repeated the failed request for `RETRY_S` seconds.

    Args:
        location: The store or a part of it, for the message; nothing is done for a local folder.

    Raises:
        UnreachableError: The object store failed.
    """
    try:
        yield
    except Exception as error:
        # A local read is frequent, so the location is looked at only after a failure.
        if not (is_remote(location) and _is_of_object_store(error)):
            raise
        # The lines after the first describe internals of obstore.
        reason = str(error).partition("\n")[0]
        raise UnreachableError(
            location, f"cannot be reached ({reason})", "check the URL, the endpoint, the network and the credentials"
        ) from error


def _is_of_object_store(error: Exception) -> bool:
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        # `object_store` reports what to install.
        return False
    return isinstance(error, BaseError)
