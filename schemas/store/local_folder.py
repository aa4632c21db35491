"""A local folder for zarr that refuses pipes and devices: reading a pipe waits forever, and a device has no end."""

from __future__ import annotations

import stat
from typing import Any

from zarr.storage import LocalStore

from schemas.limits import MAX_FILE_BYTES


class LocalFolder(LocalStore):
    """Reads regular files up to a maximum length; anything else raises OSError, as a failing device does."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """Read a file, or a range of it."""
        self._check(key, whole=_is_whole(args, kwargs))
        return await super().get(key, *args, **kwargs)

    def get_sync(self, key: str, **kwargs: Any) -> Any:
        """Read a file, or a range of it; newer versions of zarr call this."""
        self._check(key, whole=_is_whole((), kwargs))
        return super().get_sync(key, **kwargs)

    def _check(self, key: str, *, whole: bool) -> None:
        try:
            found = (self.root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise OSError(None, "it is not a regular file", str(self.root / key))
        if whole and found.st_size > MAX_FILE_BYTES:
            raise OSError(None, f"it has {found.st_size} bytes", str(self.root / key))


def _is_whole(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the caller asks for the whole file; the arguments of `get` are the prototype, then the range."""
    return kwargs.get("byte_range", args[1] if len(args) > 1 else None) is None
