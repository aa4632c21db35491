"""What models are asked, and how their answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

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

    def threshold(self, model: str, kind: PromptKind) -> float:
        """Return the logit above which a pixel is in the masks of a model under a prompt kind."""
        return self.thresholds.get((model, kind), 0.0)

    def tolerance_px(self, mpp_um: float | None, scale_xy: tuple[float, float]) -> float | None:
        """Convert the tolerance of outlines to pixels of one tile.

        Args:
            mpp_um: Width of a source pixel in micrometers; None if the name of the ROI does not give the resolution.
            scale_xy: Tile pixels per source pixel, along x and y.

        Returns:
            The tolerance in tile pixels, or None if the protocol sets no tolerance or the resolution is unknown.
        """
        if self.tolerance_um is None or mpp_um is None:
            return None
        return self.tolerance_um / mpp_um * sqrt(scale_xy[0] * scale_xy[1])
