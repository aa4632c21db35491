"""The names that a user can choose from. The command line reads them at start, so this imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

from schemas.prompt_kinds import PromptKind

MAX_IMAGE_SIZE = 8192
"""Largest side of a model's input, in pixels: at this size the features alone take gigabytes."""

MAX_SEED = 2**63 - 1
"""Largest seed that both torch and NumPy accept."""

PromptChoice = Literal[PromptKind, "mixed", "random", "mask"]

StoredChoice = Literal[PromptKind, "mixed"]
"""Prompts that a store holds. Models are compared with these."""
STORED_CHOICES: tuple[StoredChoice, ...] = get_args(StoredChoice)

PropagatedPrompt = Literal[PromptKind, "mask"]
"""Prompts in the first frame of a sequence that is followed."""
PROPAGATED_PROMPTS: tuple[PropagatedPrompt, ...] = get_args(PropagatedPrompt)

BalanceChoice = Literal["none", "classes"]
RecipeName = Literal["sam2", "medsam2", "pathosam"]
"""Publications whose settings `--recipe` takes."""

DeviceChoice = Literal["auto", "cpu", "cuda"]
SplitChoice = Literal["train", "val", "test", "all"]

MEASURE_NAMES = {"dice": "Dice", "iou": "IoU"}
"""The measures that may choose `best.pt`, as people write them."""

MAX_JITTER = 0.45
"""Largest share of its size by which a box's sides move: with half of its size, the box would be empty."""

BaselineName = Literal["box", "image", "disc"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)

ResultFormat = Literal["geojson", "masks", "coco", "csv", "overlay"]
"""The files that `predict` writes."""
RESULT_FORMATS: tuple[ResultFormat, ...] = get_args(ResultFormat)

ExportFormat = Literal["weights", "safetensors", "transformers"]
"""The forms in which `export` writes a checkpoint."""

MIXED_KINDS: tuple[PromptKind, ...] = ("box", "centroid")
"""The kinds that `mixed` draws from, with equal chance and one draw per image. Validation of `random` uses both."""


def prompt_kinds(choice: PromptChoice) -> tuple[PromptKind, ...]:
    """Return the stored prompt kinds that a choice draws from, or is validated with.

    A mask is the prompt of the first frame of a window; single images are validated with its box.
    """
    if choice == "mixed" or choice == "random":
        return MIXED_KINDS
    return ("box",) if choice == "mask" else (choice,)
