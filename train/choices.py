"""The names that a user chooses from, in one place that imports nothing heavy: the command line reads it at start."""

from __future__ import annotations

from typing import Literal, get_args

from schemas.prompt_kinds import PromptKind

MAX_IMAGE_SIZE = 8192
"""Side of a model's input in pixels: its features alone take gigabytes there."""

MAX_SEED = 2**63 - 1
"""What torch and NumPy both take."""

PromptChoice = Literal[PromptKind, "mixed", "random"]

StoredChoice = Literal[PromptKind, "mixed"]
"""Prompts that a store holds, and so what models are compared under."""
STORED_CHOICES: tuple[StoredChoice, ...] = get_args(StoredChoice)

BalanceChoice = Literal["none", "classes"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
SplitChoice = Literal["train", "val", "test", "all"]

BaselineName = Literal["box", "image", "disc"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)

MIXED_KINDS: tuple[PromptKind, ...] = ("box", "centroid")
"""What `mixed` draws from, evenly, one draw an image; what `random` is validated by."""


def prompt_kinds(choice: PromptChoice) -> tuple[PromptKind, ...]:
    """The stored kinds that a choice draws from or is validated by."""
    if choice == "mixed" or choice == "random":
        return MIXED_KINDS
    return (choice,)
