"""Write the encoded chunks of one array of one ROI, end to end in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from schemas.store.codecs import RowCodec


@dataclass
class ChunkFile:
    """A file that is written chunk by chunk; use it in a `with` statement.

    Attributes:
        path: The file.
        codec: Encodes the rows.
        sizes: Length in bytes of each chunk written so far.
    """

    path: Path
    codec: RowCodec
    sizes: list[int] = field(default_factory=list[int])
    _file: BinaryIO | None = None

    def __enter__(self) -> ChunkFile:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def append(self, row: NDArray[np.generic]) -> None:
        """Encode and write one row."""
        assert self._file is not None
        chunk = self.codec.encode(row)
        self._file.write(chunk)
        self.sizes.append(len(chunk))
