import errno
import os

import pytest

from schemas.errors import BcssError, SourceError, StoreError, UnreachableError
from schemas.store.reading import reading


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (SourceError("a.png", "is damaged", "download it"), SourceError, "a.png: is damaged; download it"),
        (
            OSError(errno.EIO, os.strerror(errno.EIO)),
            UnreachableError,
            "s.zarr/images: cannot be read (Input/output error); check the disk, and repeat the command",
        ),
        (
            RuntimeError("bad bytes"),
            StoreError,
            "s.zarr/images: cannot be decoded (bad bytes); `bcss-prep verify` lists all damage",
        ),
    ],
)
def test_failure_says_what_is_read_and_what_to_do(failure: Exception, kind: type[BcssError], message: str) -> None:
    with pytest.raises(kind) as caught, reading("s.zarr/images"):
        raise failure
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_damage_text_and_remedy_can_be_given() -> None:
    with (
        pytest.raises(StoreError, match=r"^s.zarr: is not a group; build it$"),
        reading("s.zarr", "is not a group", "build it"),
    ):
        raise KeyError("x")
