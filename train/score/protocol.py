"""What models are asked, and how their answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.prompt_kinds import PromptKind
from train.choices import BASELINES, BaselineName


@dataclass(frozen=True)
class ScoringProtocol:
    """What all models are asked, and how they are scored.

    Attributes:
        split: The tiles.
        kinds: The prompt kinds, each scored by itself.
        negatives: Whether negative points are appended.
        baselines: Which baselines stand beside the models.
        tta: Whether logits are averaged over the eight flips and quarter turns.
        corrections: Simulated clicks on the error after the prompt.
        tolerance_um: Of outlines; they are not compared without it.
        thresholds: Logit over which a pixel is in the mask, by (model, prompt kind); 0 unless given.
    """

    split: str
    kinds: tuple[PromptKind, ...]
    negatives: bool = False
    baselines: tuple[BaselineName, ...] = BASELINES
    tta: bool = False
    corrections: int = 0
    tolerance_um: float | None = None
    thresholds: Mapping[tuple[str, PromptKind], float] = field(default_factory=dict[tuple[str, PromptKind], float])
