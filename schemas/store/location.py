"""Where a store lies: a folder, or a URL of an object store (`s3://`, `gs://`, `az://`) by the obstore package.

Credentials and endpoints come from the environment, as for other tools of the object store (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, ...).
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
"""How long a request is repeated: a server that is started again takes some seconds."""

_RETRY: RetryConfig = {
    # obstore's own ten repeats are over in two seconds where nothing listens; here time alone is the bound.
    "max_retries": 1000,
    "retry_timeout": timedelta(seconds=RETRY_S),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}

_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "http", "https")


def normal_location(location: str | Path) -> str:
    """A path or URL without a trailing slash; `file://` URLs become paths."""
    text = str(location)
    parsed = urlparse(text)
    if parsed.scheme == "file":
        return unquote(parsed.path).rstrip("/") or "/"
    return text.rstrip("/") or "/"


def is_remote(location: str) -> bool:
    """Whether it is a URL of an object store."""
    return urlparse(location).scheme in _SCHEMES and "://" in location


def object_store(location: str) -> ObjectStore:
    """Open an object store whose root is the location.

    Raises:
        ConfigError: obstore is not installed, or does not understand the URL.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigError(location, "needs the obstore package", "pip install 'bcss-sam2[s3]'") from error
    try:
        return from_url(location, retry_config=_RETRY)
    except (BaseError, ValueError) as error:
        raise ConfigError(location, f"is no object store ({error})", "check the URL and the credentials") from error


def zarr_location(location: str) -> zarr.abc.store.Store:
    """What `zarr.open_group` takes for a location, for reading."""
    if not is_remote(location):
        from schemas.store.local_folder import LocalFolder

        return LocalFolder(location, read_only=True)
    from zarr.storage import ObjectStore as ZarrObjectStore

    return ZarrObjectStore(cast("Any", object_store(location)), read_only=True)


@contextmanager
def remote_errors(location: str) -> Generator[None]:
    """Turn what an object store fails with, such as no answer or no permission, to an error of this project.

    A failed request has been repeated for `RETRY_S` seconds by then.

    Raises:
        UnreachableError: The object store failed.
    """
    if not is_remote(location):
        yield
        return
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        # `object_store` says what to install.
        yield
        return
    try:
        yield
    except BaseError as error:
        # The lines that follow the first are the internals of obstore.
        reason = str(error).partition("\n")[0]
        raise UnreachableError(
            location, f"is not to be had ({reason})", "check the URL, the endpoint, the network and the credentials"
        ) from error
