"""What changes while a run goes on, and how it is kept in a checkpoint and taken out of it again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from schemas.errors import CheckpointError, ConfigError
from train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from train.config import FitConfig
from train.lora import adapter_state, add_adapters, load_adapters, merged_weights
from train.model import PromptableSam
from train.optimizer import make_optimizer
from train.runlog import StepRecord

logger = logging.getLogger(__name__)

FREE_SETTINGS = {"workers", "save_every_steps", "patience", "device", "init", "compile", "epochs", "max_steps"}
"""Settings that a resumed run may change; all others decide what is trained."""


@dataclass
class Run:
    """The state of a run.

    Attributes:
        config: Its configuration.
        model: Being trained.
        optimizer: Its optimizer.
        steps_per_epoch: Steps of an epoch.
        ema: Moving average of the weights, where one is kept.
        steps: Steps done.
        elapsed_s: Time spent, earlier parts of a resumed run included.
        loss: Of the last step.
        best_score: Validation score of `best.pt`, None before there is one.
        epochs_since_best: Epochs without a better one.
        val: The last validation.
        history: The steps of this part of the run.
    """

    config: FitConfig
    model: PromptableSam
    optimizer: torch.optim.Optimizer
    steps_per_epoch: int
    ema: AveragedModel | None = None
    steps: int = 0
    elapsed_s: float = 0.0
    loss: float = float("nan")
    best_score: float | None = None
    epochs_since_best: int = 0
    val: dict[str, Any] | None = None
    history: list[StepRecord] = field(default_factory=list[StepRecord])

    @property
    def scored_model(self) -> PromptableSam:
        """The weights that validation scores: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module  # pyright: ignore[reportReturnType]

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors and plain Python values alone."""
        config = self.config
        content: dict[str, Any] = {
            "model": merged_weights(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None,
            "scheduler": {"step": self.steps},
            "epoch": self.steps // self.steps_per_epoch,
            "steps": self.steps,
            "sampler": {"epoch": self.steps // self.steps_per_epoch, "batch": self.steps % self.steps_per_epoch},
            "loss": self.loss,
            "time_elapsed": self.elapsed_s,
            "best_meter_values": {} if self.best_score is None else {config.best_by: self.best_score},
            "epochs_since_best": self.epochs_since_best,
            "rng": {"torch": torch.get_rng_state(), "cuda": list(torch.cuda.get_rng_state_all())},
            "threads": torch.get_num_threads(),
            "model_size": config.model,
            "image_size": config.image_size,
            "config": config.model_dump(mode="json"),
        }
        if self.ema is not None:
            content["ema"] = merged_weights(self.scored_model)
        if config.lora.rank:
            content["adapter"] = adapter_state(self.model)
        return content

    def best_content(self) -> dict[str, Any]:
        """What `best.pt` holds: the weights that were scored, without the optimizer."""
        content = self.content()
        content["model"] = content.pop("ema", content["model"])
        del content["optimizer"]
        return content


def start_run(config: FitConfig, steps_per_epoch: int, device: torch.device) -> Run:
    """Build the model, from `--init` or seeded random weights, and its optimizer."""
    torch.manual_seed(config.seed)
    model = PromptableSam(config.model, config.image_size, config.corrections)
    if config.init:
        load_weights(model, load_checkpoint(config.init)["model"], config.init)
        logger.info("starts from %s", config.init)
    else:
        logger.warning("starts from random weights, which need far more data than a fine-tuning; --init gives better")
    model.freeze(config.freeze)
    if config.lora.rank:
        add_adapters(model, config.lora)
    model.to(device).train()
    average = None
    if config.optimizer.ema_decay:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.optimizer.ema_decay))
    return Run(config, model, make_optimizer(model, config.optimizer), steps_per_epoch, average)


def save_last(run: Run, path: Path) -> None:
    """Write `checkpoint.pt`; the one before it stays as `previous.pt`."""
    if path.exists():
        path.replace(previous_of(path))
    save_checkpoint(path, run.content())


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the last one is kept."""
    return path.with_name("previous.pt")


def restore_run(run: Run, path: Path) -> bool:
    """Take the state out of the last checkpoint that can be read; say whether there was one.

    Raises:
        CheckpointError: Neither the last nor the one before it can be resumed.
        ConfigError: The run was begun with other settings.
    """
    candidates = [candidate for candidate in (path, previous_of(path)) if candidate.exists()]
    for candidate in candidates:
        try:
            content = load_checkpoint(candidate)
        except CheckpointError as error:
            if candidate == candidates[-1]:
                raise
            logger.warning("%s; taking the one before it", error)
            continue
        _check_config(run.config, content, candidate)
        _restore(run, content, candidate)
        logger.info("resumes %s after step %d", candidate, run.steps)
        return True
    return False


def _restore(run: Run, content: dict[str, Any], path: Path) -> None:
    try:
        if run.config.lora.rank:
            load_adapters(run.model, content["adapter"])
        else:
            load_weights(run.model, content["model"], path)
        if run.ema is not None:
            load_weights(run.scored_model, content["ema"], path)
            run.ema.n_averaged.fill_(content["steps"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.steps, run.elapsed_s, run.loss = content["steps"], content["time_elapsed"], content["loss"]
        run.best_score = content["best_meter_values"].get(run.config.best_by)
        run.epochs_since_best = content["epochs_since_best"]
        threads = content["threads"]
    except (KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(path, f"cannot be resumed ({error})", "start a new run with --init") from error
    if threads != torch.get_num_threads():
        logger.warning(
            "%s was written with %d threads and this process has %d: sums may differ in their last bits",
            path,
            threads,
            torch.get_num_threads(),
        )


def _check_config(config: FitConfig, content: dict[str, Any], path: Path) -> None:
    begun = content.get("config")
    if not isinstance(begun, dict):
        raise CheckpointError(path, "is not of bcss-train fit", "use it with --init")
    now = config.model_dump(mode="json")
    for key in sorted(now.keys() - FREE_SETTINGS):
        if begun.get(key) != now[key]:
            raise ConfigError(
                path,
                f"was begun with {key} = {begun.get(key)}, not {now[key]}",
                "repeat its flags, or choose another --out",
            )
