"""The kinds of prompt that a store can give for an object."""

from __future__ import annotations

from typing import Literal, get_args

PromptKind = Literal["centroid", "multi_point", "box"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
