"""Define the protocol of an evaluation: what models are asked, and how their answers are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from train.choices import BASELINES, BaselineName
from train.score.surface_dice import TileOutlines


@dataclass(frozen=True)
class ScoringProtocol:
    """What all models are asked, and how they are scored.

    Attributes:
        split: The split whose tiles are scored: `train`, `val`, `test`, or `all` for all three.
        kinds: The prompt kinds, each of which is scored separately.
        negatives: Whether the stored negative points are appended to each prompt.
        baselines: Names of the baselines that are scored beside the models.
        tta: Whether a model's logits are averaged over the eight flips and quarter turns of the tile.
        corrections: Number of simulated clicks on the error after the prompt.
        jitter: Shares of an object's size by which its prompts are moved; the models are asked again with each.
        tolerance_um: Distance in micrometers up to which outlines agree; None compares no outlines.
        allow_seen: Whether a model's own training and validation patients may be in the test split.
        primary: Model, model to subtract and prompt kind of the primary comparison, which is not adjusted for the
            number of comparisons; None takes the first model against its initial weights under the first prompt kind.
        against: Models or baselines that each model is compared with; without any, its start and the best baseline.
        start_of: The name of each model's start, for models that have one; None takes the first start that is scored.
        thresholds: The logit above which a pixel is in the mask, by (model, prompt kind); 0 where none is given.
    """

    split: str
    kinds: tuple[PromptKind, ...]
    negatives: bool = False
    baselines: tuple[BaselineName, ...] = BASELINES
    tta: bool = False
    corrections: int = 0
    jitter: tuple[float, ...] = ()
    tolerance_um: float | None = None
    allow_seen: bool = False
    primary: tuple[str, ...] | None = None
    against: tuple[str, ...] = ()
    start_of: Mapping[str, str] | None = None
    thresholds: Mapping[tuple[str, PromptKind], float] = field(default_factory=dict[tuple[str, PromptKind], float])

    def threshold(self, model: str, kind: PromptKind) -> float:
        """Return the logit above which a pixel is in the masks of a model under a prompt kind."""
        return self.thresholds.get((model, kind), 0.0)

    def outlines(self, record: Record, mpp_um: float | None) -> TileOutlines | None:
        """Return an object that compares outlines in one tile.

        Args:
            record: The tile.
            mpp_um: Width of a source pixel in micrometers; None if the resolution of the ROI is not known.

        Returns:
            None if the protocol sets no tolerance or the resolution is not known.
        """
        if self.tolerance_um is None or mpp_um is None:
            return None
        across, down = record.scale_xy
        return TileOutlines(record.ignore, (mpp_um / across, mpp_um / down), self.tolerance_um)
