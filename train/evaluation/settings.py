"""The settings of one evaluation. `metrics.json` holds them, so that it can be repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.backbone.catalog import ModelSize
from train.choices import BASELINES, MAX_JITTER, BaselineName, DeviceChoice, SplitChoice, StoredChoice, prompt_kinds
from train.score.answers import default_split
from train.score.protocol import ScoringProtocol
from train.settings import Settings


class EvaluationSettings(Settings):
    """The settings of `bcss-train evaluate`, as the user gave them.

    Attributes:
        store: Path or URL of the store.
        checkpoints: The checkpoints, each as `PATH` or `NAME=PATH`.
        baselines: The baselines that are scored.
        model: Network of official checkpoints; None if no flag says it.
        image_size: Side of the input of official checkpoints' networks in pixels; None if no flag says it.
        split: The split that is scored; None takes the first of test, val and train that has an object.
        prompts: The prompts.
        negatives: Whether the stored negative clicks are appended to each prompt.
        tta: Whether logits are averaged over the eight flips and quarter turns.
        corrections: Number of simulated clicks.
        jitter: Shares of an object's size by which prompts are moved.
        threshold: A logit, or `val`.
        tolerance_um: Tolerance of surface Dice in micrometers; 0 leaves it out.
        zero_shot: Whether the weights that the checkpoints were trained from are scored, too.
        primary: Model, model to subtract and prompt of the primary comparison; None takes the default.
        against: Models that each model is compared with; none takes the default.
        save_masks: Whether the masks of each tile are written.
        baseline_masks: The baselines whose masks and ROIs are written, too.
        stitch: Whether ROIs are put together and scored.
        allow_seen: Whether patients that a model was trained on may be in the test split.
        device: The device.
    """

    store: str
    checkpoints: tuple[str, ...] = ()
    baselines: tuple[BaselineName, ...] = BASELINES
    model: ModelSize | None = None
    image_size: int | None = None
    split: SplitChoice | None = None
    prompts: tuple[StoredChoice, ...] = ("mixed",)
    negatives: bool = False
    tta: bool = False
    corrections: int = Field(default=0, ge=0)
    jitter: tuple[Annotated[float, Field(gt=0, le=MAX_JITTER)], ...] = ()
    threshold: str = "0"
    tolerance_um: float = Field(default=2.0, ge=0)
    zero_shot: bool = True
    primary: tuple[str, ...] | None = None
    against: tuple[str, ...] = ()
    save_masks: bool = False
    baseline_masks: tuple[BaselineName, ...] = ()
    stitch: bool = False
    allow_seen: bool = False
    device: DeviceChoice = "auto"

    def protocol(self, store: Store) -> ScoringProtocol:
        """Return the protocol for a store, without thresholds."""
        kinds: dict[PromptKind, None] = dict.fromkeys(kind for choice in self.prompts for kind in prompt_kinds(choice))
        return replace(
            ScoringProtocol(self.split or default_split(store), tuple(kinds)),
            negatives=self.negatives,
            baselines=self.baselines,
            tta=self.tta,
            corrections=self.corrections,
            jitter=tuple(dict.fromkeys(self.jitter)),
            tolerance_um=self.tolerance_um or None,
            allow_seen=self.allow_seen,
            primary=self.primary,
            against=self.against,
        )
