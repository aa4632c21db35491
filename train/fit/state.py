"""Hold the state of a run, which changes from step to step; build it at the start, and save it in checkpoints."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim.swa_utils import AveragedModel

from schemas.prompt_kinds import PromptKind
from train.backbone.nano_start import init_file
from train.config import FitConfig
from train.fit.average import moving_average
from train.fit.optimizer import make_optimizer
from train.model.checkpoint import load_identified, load_weights, prediction_weights
from train.model.lora import add_adapters, weights_of
from train.model.promptable import PromptableSam
from train.model.seen_patients import SeenPatients, seen_patients
from train.model.train_state import TrainState
from train.model.trained_on import TrainedOn
from train.runtime.random_state import rng_states

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """Data and batches of a run; they must be the same when the run is resumed.

    Attributes:
        data_sha256: Digest of the store's content.
        global_batch: Images per step, over all processes and accumulated batches.
        steps_per_epoch: Steps per epoch.
    """

    data_sha256: str
    global_batch: int
    steps_per_epoch: int


WeightsKind = Literal["raw", "average"]


@dataclass
class Run:
    """The state of a run.

    Attributes:
        config: Settings of the run.
        model: The model that is trained.
        optimizer: Optimizer of the model's trained parameters.
        origin: Data and batches of the run.
        ema: Moving average of the weights; None if the run keeps none.
        init_sha256: SHA-256 of the file of `--init`; None without `--init`.
        seen: Patients that the run or its initial weights were trained or validated on.
        trained_on: Record of the training data; None in a run without a store.
        steps: Number of steps done.
        elapsed_s: Seconds spent in steps, including earlier parts of a resumed run.
        loss: Loss of the last step.
        ema_warms_up: Whether the decay of the average is smaller in the first steps; false in runs of older versions.
        best_score: Validation score of `best.pt`; None before the first validation.
        best_by_objects: Whether that score counts every object alike, as in runs of older versions; otherwise it is the
            class mean, the primary number of an evaluation.
        best_weights: Whether `best.pt` has the weights of its step or their moving average; None without an average.
        start_score: Validation score before the first step; None if there is none, as in runs of older versions.
        start_dice: Dice of the start on every validation object, by prompt kind; None if it is not known.
        against_start: The paired difference of `best.pt` minus the start, as in `summary.json`; None if there is none.
        epochs_since_best: Number of epochs since the best score.
        scored_steps: Number of steps done at the last validation; -1 before the start was validated.
        val: Scores of the last validation, by prompt kind.
    """

    config: FitConfig
    model: PromptableSam
    optimizer: torch.optim.Optimizer
    origin: RunIdentity
    ema: AveragedModel | None = None
    init_sha256: str | None = None
    seen: SeenPatients = field(default_factory=SeenPatients)
    trained_on: TrainedOn | None = None
    steps: int = 0
    elapsed_s: float = 0.0
    loss: float = float("nan")
    ema_warms_up: bool = True
    best_score: float | None = None
    best_by_objects: bool = False
    best_weights: WeightsKind | None = None
    start_score: float | None = None
    start_dice: dict[PromptKind, list[float]] | None = None
    against_start: dict[str, Any] | None = None
    epochs_since_best: int = 0
    scored_steps: int = -1
    val: dict[str, Any] | None = None

    @property
    def epochs_done(self) -> int:
        """Number of whole epochs done."""
        return self.steps // self.origin.steps_per_epoch

    @property
    def best_is_start(self) -> bool | None:
        """Whether `best.pt` still holds the initial weights, so nothing beat them; None if they were not validated."""
        return None if self.start_score is None else self.best_score == self.start_score

    @property
    def best_score_name(self) -> str:
        """Name of the score that chooses `best.pt`, as checkpoints have it."""
        return self.config.best_by if self.best_by_objects else f"{self.config.best_by}_class_mean"

    @property
    def averaged_model(self) -> PromptableSam:
        """The moving average if the run keeps one, otherwise the model."""
        return self.model if self.ema is None else self.ema.module  # pyright: ignore[reportReturnType]

    def state(self) -> TrainState:
        """Return the content of a checkpoint of the run as it is now."""
        config, epoch = self.config, self.epochs_done
        weights = weights_of(self.model)
        return TrainState(
            model=weights["model"],
            adapter=weights.get("adapter"),
            base_layers=weights.get("base_layers"),
            optimizer=self.optimizer.state_dict(),
            scheduler={"step": self.steps},
            epoch=epoch,
            steps=self.steps,
            sampler={"epoch": epoch, "batch": self.steps % self.origin.steps_per_epoch},
            origin=asdict(self.origin),
            init_sha256=self.init_sha256,
            patients=self.seen.content(),
            trained_on=self.trained_on.content() if self.trained_on else None,
            loss=self.loss,
            time_elapsed=self.elapsed_s,
            best_meter_values={} if self.best_score is None else {self.best_score_name: self.best_score},
            best_weights=self.best_weights,
            ema_warms_up=self.ema_warms_up,
            start_score=self.start_score,
            start_dice=self.start_dice,
            against_start=self.against_start,
            epochs_since_best=self.epochs_since_best,
            scored_steps=self.scored_steps,
            val=self.val,
            rng=rng_states(),
            threads=torch.get_num_threads(),
            model_size=config.model,
            image_size=config.image_size,
            config=config.model_dump(mode="json"),
            ema=None if self.ema is None else weights_of(self.averaged_model),
        )

    def best_state(self, model: PromptableSam) -> TrainState:
        """Return the content of `best.pt`: the weights of the given model, without the optimizer and the average."""
        return self.state().model_copy(update=weights_of(model)).without_training()


def start_run(config: FitConfig, origin: RunIdentity, device: torch.device) -> Run:
    """Build the model with the weights of `--init` or with seeded random weights, and build its optimizer.

    Args:
        config: Settings of the run.
        origin: Data and batches of the run.
        device: Device of the model.

    Returns:
        The run before its first step.

    Raises:
        CheckpointError: The file of `--init` cannot be read, or does not fit the model.
        ConfigError: Nothing would be trained, or `freeze` names a module that does not exist.
    """
    torch.manual_seed(config.seed)
    has_masks = (config.corrections > 0 and config.mask_prompt_share > 0) or config.gives_masks
    model = PromptableSam(config.model, config.image_size, mask_prompts=has_masks, memory=config.frames > 1)
    digest, seen = None, SeenPatients()
    if config.init:
        file = init_file(config.init)
        content, weights = load_identified(file)
        load_weights(model, prediction_weights(content, file), file)
        digest = weights.sha256
        seen = seen.joined(seen_patients(content, file))
    model.freeze((*config.freeze, *_without_gradient(config, model)))
    if config.lora.rank:
        add_adapters(model, config.lora)
    model.to(device).train()
    average = None
    if config.optimizer.ema_decay:
        average = moving_average(model, config.optimizer.ema_decay)
    return Run(config, model, make_optimizer(model, config.optimizer), origin, average, digest, seen)


def _without_gradient(config: FitConfig, model: PromptableSam) -> tuple[str, ...]:
    """Name the modules that get no gradient: the head of the object score without its loss term, for example."""
    parts = (
        (model.backbone.presence_head, config.loss.predict_presence),
        (model.backbone.mask_pointer, config.gives_masks),
    )
    return tuple(name for name, has_gradient in parts if not has_gradient)


def save_last(run: Run, path: Path) -> None:
    """Write `checkpoint.pt`, and keep the one before as `previous.pt` if the run says so."""
    keep = run.config.keep_previous
    run.state().save(path, keep_as=previous_of(path) if keep else None)
    if not keep:
        # It is older than the one before, because it was kept before this run was resumed.
        previous_of(path).unlink(missing_ok=True)


def previous_of(path: Path) -> Path:
    """Return the path of the checkpoint before the last one."""
    return path.with_name("previous.pt")
