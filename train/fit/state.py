"""What changes while a run goes on, and how it is kept in a checkpoint and taken out of it again."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from schemas.errors import CheckpointError, ConfigError
from train.config import FitConfig
from train.fit.optimizer import make_optimizer
from train.model.checkpoint import Weights, load_checkpoint, load_identified, load_weights
from train.model.lora import add_adapters, load_adapted, weights_of
from train.model.promptable import PromptableSam
from train.model.train_state import TrainState
from train.runtime.random_state import rng_states, set_rng_states

logger = logging.getLogger(__name__)

FREE_SETTINGS = {
    "workers",
    "save_every_steps",
    "patience",
    "device",
    "init",
    "compile",
    "checkpoint_activations",
    "epochs",
    "max_steps",
    "report",
}
"""Settings that a resumed run may change; a longer run also stretches the rest of the cosine."""

SPLIT_SETTINGS = {"batch_size", "optimizer.accumulate"}
"""Settings that may change together with the number of processes, as long as a step has as many images."""


@dataclass(frozen=True)
class Origin:
    """What a run is made on; a resumed one must be made on the same.

    Attributes:
        data_sha256: Digest of the store's content.
        global_batch: Images of a step, over all processes and accumulated batches.
        steps_per_epoch: Steps of an epoch.
    """

    data_sha256: str
    global_batch: int
    steps_per_epoch: int


@dataclass
class Run:
    """The state of a run.

    Attributes:
        config: Its configuration.
        model: Being trained.
        optimizer: Its optimizer.
        origin: What it is made on.
        ema: Moving average of the weights, where one is kept.
        init_sha256: Digest of the file of `--init`, where there is one.
        steps: Steps done.
        elapsed_s: Time spent in steps, earlier parts of a resumed run included.
        loss: Of the last step.
        best_score: Validation score of `best.pt`, None before there is one.
        epochs_since_best: Epochs without a better one.
        scored_steps: How many steps had been done when the weights were validated last.
        val: The last validation.
    """

    config: FitConfig
    model: PromptableSam
    optimizer: torch.optim.Optimizer
    origin: Origin
    ema: AveragedModel | None = None
    init_sha256: str | None = None
    steps: int = 0
    elapsed_s: float = 0.0
    loss: float = float("nan")
    best_score: float | None = None
    epochs_since_best: int = 0
    scored_steps: int = 0
    val: dict[str, Any] | None = None

    @property
    def epochs_done(self) -> int:
        """Whole epochs done."""
        return self.steps // self.origin.steps_per_epoch

    @property
    def scored_model(self) -> PromptableSam:
        """The weights that validation scores: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module  # pyright: ignore[reportReturnType]

    def state(self) -> TrainState:
        """Return what a checkpoint holds of the run now."""
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
            loss=self.loss,
            time_elapsed=self.elapsed_s,
            best_meter_values={} if self.best_score is None else {config.best_by: self.best_score},
            epochs_since_best=self.epochs_since_best,
            scored_steps=self.scored_steps,
            val=self.val,
            rng=rng_states(),
            threads=torch.get_num_threads(),
            model_size=config.model,
            image_size=config.image_size,
            config=config.model_dump(mode="json"),
            ema=None if self.ema is None else weights_of(self.scored_model),
        )

    def best_state(self) -> TrainState:
        """Return what `best.pt` holds: the weights that were scored, without what only `--resume` needs."""
        return self.state().model_copy(update=weights_of(self.scored_model)).without_training()


def start_run(config: FitConfig, origin: Origin, device: torch.device) -> Run:
    """Build the model, from `--init` or seeded random weights, and its optimizer.

    Raises:
        CheckpointError: The file of `--init` cannot be read or is of another model.
        ConfigError: Nothing would be trained, or a module has no such name.
    """
    torch.manual_seed(config.seed)
    model = PromptableSam(config.model, config.image_size, mask_prompts=config.corrections > 0)
    digest = None
    if config.init:
        content, weights = load_identified(config.init)
        load_weights(model, content["model"], config.init)
        digest = weights.sha256
    # Nothing else gives the head of the object score a gradient.
    unused = () if config.loss.predict_presence else (model.backbone.presence_head,)
    model.freeze((*config.freeze, *unused))
    if config.lora.rank:
        add_adapters(model, config.lora)
    model.to(device).train()
    average = None
    if config.optimizer.ema_decay:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.optimizer.ema_decay))
    return Run(config, model, make_optimizer(model, config.optimizer), origin, average, digest)


def save_last(run: Run, path: Path) -> None:
    """Write `checkpoint.pt`; the one before it stays as `previous.pt`."""
    run.state().save(path, keep_as=previous_of(path))


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the last one is kept."""
    return path.with_name("previous.pt")


def readable_checkpoint(path: Path) -> Path | None:
    """The last checkpoint, or the one before it where that is damaged; None where there is none.

    Of several processes one asks, since what is damaged is moved out of the way.

    Raises:
        CheckpointError: Neither can be read.
    """
    candidates = [candidate for candidate in (path, previous_of(path)) if candidate.exists()]
    for candidate in candidates:
        try:
            load_checkpoint(candidate)
        except CheckpointError as error:
            if candidate == candidates[-1]:
                raise
            logger.warning("%s; taking the one before it", error)
            # Out of the way, lest the next save keep it as the one before.
            candidate.replace(candidate.with_suffix(".damaged"))
        else:
            return candidate
    return None


def restore_run(run: Run, path: Path) -> None:
    """Take the state out of a checkpoint.

    Raises:
        CheckpointError: It cannot be resumed.
        ConfigError: The run was begun with other settings.
    """
    state = TrainState.load(path)
    _check_config(run, state, path)
    try:
        _take_up(run, state, path)
    except CheckpointError:
        raise
    except Exception as error:
        # Values of other kinds make the optimizer and the generators fail with errors of any type.
        raise CheckpointError(path, f"cannot be resumed ({error})", "start a new run with --init") from error
    if state.threads != torch.get_num_threads():
        logger.warning(
            "%s was written with %d threads and this process has %d: sums may differ in their last bits",
            path,
            state.threads,
            torch.get_num_threads(),
        )
    logger.info("resumes %s after step %d", path, run.steps)


def _take_up(run: Run, state: TrainState, path: Path) -> None:
    _load(run.model, state.weights, path)
    if run.ema is not None:
        if state.ema is None:
            raise CheckpointError(path, "holds no moving average", "start a new run with --init")
        _load(run.scored_model, state.ema, path)
        run.ema.n_averaged.fill_(state.steps)
    if state.optimizer is None:
        raise CheckpointError(path, "holds no optimizer, as best.pt does not", "give checkpoint.pt, or use --init")
    for group in state.optimizer["param_groups"]:
        # The device decides, and it may be another one now.
        group["fused"] = run.optimizer.defaults["fused"]
    run.optimizer.load_state_dict(state.optimizer)
    run.steps, run.elapsed_s, run.loss = state.steps, state.time_elapsed, state.loss
    run.best_score = state.best_meter_values.get(run.config.best_by)
    run.epochs_since_best = state.epochs_since_best
    run.scored_steps, run.val = state.scored_steps, state.val
    # Where the weights came from does not change, whatever is given now.
    run.config = FitConfig.model_validate(run.config.model_dump() | {"init": state.config.get("init")})
    run.init_sha256 = state.init_sha256
    set_rng_states(state.rng)


def _load(model: PromptableSam, parts: Mapping[str, Weights], path: Path) -> None:
    if "adapter" in parts:
        load_adapted(model, parts)
    else:
        load_weights(model, parts["model"], path)


def _check_config(run: Run, state: TrainState, path: Path) -> None:
    now = {**asdict(run.origin), **run.config.model_dump(mode="json")}
    then = {**state.origin, **_with_defaults(state.config, FitConfig().model_dump(mode="json"))}
    difference = _first_difference(now, then)
    if difference is not None:
        key, ours, theirs = difference
        raise ConfigError(
            path,
            f"was begun with {key} = {reprlib.repr(theirs)}, not {ours}",
            "repeat its store, flags and processes, or choose another --out",
        )


def _with_defaults(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Give each setting that a file does not know its default: an older version of this program did what that says."""
    filled: dict[str, Any] = {**defaults, **settings}
    for key, default in defaults.items():
        own = settings.get(key)
        # A free-form mapping such as class weights has an empty default, and is taken as it is.
        if isinstance(default, dict) and default and isinstance(own, dict):
            filled[key] = _with_defaults(cast("dict[str, Any]", own), cast("dict[str, Any]", default))
    return filled


def _first_difference(now: dict[str, Any], then: dict[str, Any], prefix: str = "") -> tuple[str, object, object] | None:
    """The first setting, by dotted key, that a run may not change and that differs, with its two values.

    Only what this run has is descended into: a file's own nesting may have no end.
    """
    for key in sorted(now.keys() | {str(key) for key in then}):
        name, ours, theirs = f"{prefix}{key}", now.get(key), then.get(key)
        if isinstance(ours, dict) and ours and isinstance(theirs, dict):
            difference = _first_difference(cast("dict[str, Any]", ours), cast("dict[str, Any]", theirs), f"{name}.")
            if difference is not None:
                return difference
        elif name not in FREE_SETTINGS | SPLIT_SETTINGS and (isinstance(theirs, torch.Tensor) or ours != theirs):
            return name, ours, theirs
    return None
