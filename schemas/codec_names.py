"""The names of the image codecs. Command lines read them when they start, so this module imports nothing heavy."""

from __future__ import annotations

from typing import Literal

CodecName = Literal["fast", "small"]
"""How images are compressed: `fast` reads quickly, and `small` takes little space. Both are lossless.

`schemas.store.codecs` has one entry for each.
"""
