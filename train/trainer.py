"""Fine-tune SAM 2 on a store: the story of one run, from top to bottom.

A run is a function of its configuration and its store. The order of tiles is keyed by (seed, epoch), a sample's draws
by (seed, epoch, tile), and the model's own (drop path) by (seed, step), so a resumed run goes on bit by bit.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from schemas.errors import CheckpointError, TrainingError
from schemas.store import Store
from train.batch_loss import batch_loss
from train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from train.collate import Batch, collate
from train.config import FitConfig
from train.dataset import SampleOptions, TileDataset
from train.device import autocast, peak_memory_bytes, pick_device
from train.evaluate import Protocol, answer_tiles, score_answers, summarize, tiles_with_objects
from train.model import PromptableSam
from train.optimizer import make_optimizer, set_learning_rates
from train.predict import MaskPredictor
from train.runlog import RunLog, StepRecord
from train.sampler import EpochSampler

logger = logging.getLogger(__name__)

OnStep = Callable[[StepRecord, int], None]


@dataclass
class Run:
    """Everything that changes while a run goes on.

    Attributes:
        model: Being trained.
        optimizer: Its optimizer.
        steps: Steps done.
        elapsed_s: Time spent, earlier parts of a resumed run included.
        loss: Of the last step.
        best_score: Validation score of `best.pt`, None before there is one.
        val: The last validation.
        history: The steps of this part of the run.
    """

    model: PromptableSam
    optimizer: torch.optim.Optimizer
    steps: int = 0
    elapsed_s: float = 0.0
    loss: float = float("nan")
    best_score: float | None = None
    val: dict[str, Any] | None = None
    history: list[StepRecord] = field(default_factory=list)


def fit(
    store: Store, config: FitConfig, out: Path, *, resume: bool = False, on_step: OnStep | None = None
) -> dict[str, object]:
    """Train, and write checkpoints, logs and `summary.json`.

    Args:
        store: Tiles and prompts.
        config: The run.
        out: The run's folder.
        resume: Whether to go on from its last checkpoint, if it holds one.
        on_step: Told each step and how many there will be.

    Returns:
        What `summary.json` holds.

    Raises:
        StoreError: The store has no training tile.
        ConfigError: The configuration does not fit the store or the machine.
        CheckpointError: A checkpoint cannot be read or written, or the folder holds another run.
        TrainingError: The loss is no longer finite.
    """
    device = pick_device(config.device)
    train_tiles = tiles_with_objects(store, "train")
    val_tiles = tiles_with_objects(store, "val", may_be_empty=True)
    if not len(val_tiles):
        logger.warning("%s has no validation tile: nothing chooses a best.pt, and none is written", store.path)
    checkpoint = out / "checkpoints" / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise CheckpointError(checkpoint, "is of an earlier run", "give --resume to go on, or choose another --out")

    run = _start(config, device)
    if resume and checkpoint.exists():
        _restore(run, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "config.json", _describe(store, config))
    sampler = EpochSampler(train_tiles, config.batch_size, config.seed)
    loader = _make_loader(store, config, sampler, device)
    total_steps = min(config.epochs * len(sampler), config.max_steps or config.epochs * len(sampler))
    with RunLog(out, kept_steps=run.steps) as log:
        while run.steps < total_steps:
            sampler.epoch, sampler.first_batch = divmod(run.steps, len(sampler))
            for record in _train_epoch(run, loader, config, device, sampler, total_steps):
                log.step(record)
                if on_step:
                    on_step(record, total_steps)
                if config.save_every_steps and run.steps % config.save_every_steps == 0:
                    save_checkpoint(checkpoint, _content(run, config, sampler))
            score = _validate(run, store, val_tiles, config, device)
            log.epoch(run.steps, sampler.epoch + 1, run.val, score)
            if score is not None and (run.best_score is None or score > run.best_score):
                run.best_score = score
                save_checkpoint(checkpoint.with_name("best.pt"), _content(run, config, sampler))
            save_checkpoint(checkpoint, _content(run, config, sampler))
    summary = _summary(run, config, sampler, device)
    _write_json(out / "summary.json", summary)
    return summary


def _start(config: FitConfig, device: torch.device) -> Run:
    torch.manual_seed(config.seed)
    model = PromptableSam(config.model, config.image_size)
    if config.init:
        load_weights(model, load_checkpoint(config.init)["model"], config.init)
        logger.info("starts from %s", config.init)
    else:
        logger.warning("starts from random weights, which need far more data than a fine-tuning; --init gives better")
    model.freeze(config.freeze)
    model.to(device).train()
    return Run(model, make_optimizer(model, config))


def _restore(run: Run, checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint)
    load_weights(run.model, content["model"], checkpoint)
    try:
        run.optimizer.load_state_dict(content["optimizer"])
        run.steps, run.elapsed_s, run.loss = content["steps"], content["time_elapsed"], content["loss"]
        run.best_score = content["best_meter_values"].get("val_dice")
    except (KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(
            checkpoint, f"cannot be resumed ({error})", "give the flags that the run was started with"
        ) from error
    logger.info("resumes %s after step %d", checkpoint, run.steps)


def _make_loader(store: Store, config: FitConfig, sampler: EpochSampler, device: torch.device) -> DataLoader[Any]:
    options = SampleOptions(
        image_size=config.image_size,
        prompt=config.prompt,
        negatives=config.negatives,
        max_objects=config.max_objects,
        augment=config.augment,
        seed=config.seed,
    )
    dataset = TileDataset(store.path, options)
    dataset.check()
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        # Workers live through all epochs and are spawned: a fork copies whatever locks the parent's threads hold.
        persistent_workers=config.workers > 0,
        multiprocessing_context="spawn" if config.workers else None,
    )


def _train_epoch(
    run: Run,
    loader: DataLoader[Any],
    config: FitConfig,
    device: torch.device,
    sampler: EpochSampler,
    total_steps: int,
) -> Iterator[StepRecord]:
    """Train to the end of the epoch or of the run, and yield each step after it was made."""
    start = time.perf_counter()
    for batch in loader:
        waited = time.perf_counter() - start
        rates = set_learning_rates(run.optimizer, run.steps, total_steps, config.final_lr_fraction)
        torch.manual_seed(_seed_of_step(config.seed, run.steps))
        values = _train_step(run, batch.to(device), config, device)
        run.steps += 1
        run.loss = values["loss"]
        took = time.perf_counter() - start
        run.elapsed_s += took
        record = StepRecord(
            step=run.steps,
            epoch=sampler.epoch + 1,
            **values,
            lr=rates.get("decoder", 0.0),
            vision_lr=rates.get("vision", 0.0),
            images=batch.images.shape[1],
            objects=batch.num_objects,
            dropped=batch.dropped,
            data_wait_s=waited,
            step_s=took,
            tiles=batch.tile_indices,
        )
        run.history.append(record)
        yield record
        if run.steps >= total_steps:
            return
        start = time.perf_counter()


def _train_step(run: Run, batch: Batch, config: FitConfig, device: torch.device) -> dict[str, float]:
    """Forward, backward, clip and update; return the loss, its terms and the gradient's norm."""
    run.optimizer.zero_grad(set_to_none=True)
    with autocast(device):
        predictions = run.model(batch)
    terms = batch_loss(predictions, batch, config.loss)
    norm = torch.zeros(())
    if predictions:
        terms.total.backward()
        parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    names = ("loss", "mask", "dice", "iou", "presence", "grad_norm")
    # One transfer for all numbers: each `.item()` would wait for the device.
    numbers = torch.stack(
        [terms.total, terms.mask, terms.dice, terms.iou, terms.presence, norm.to(terms.total)]
    ).tolist()
    if not np.isfinite(numbers).all():
        raise TrainingError(
            f"step {run.steps + 1}, tiles {batch.tile_indices}",
            f"the loss or its gradient is not finite ({dict(zip(names, numbers, strict=True))})",
            "lower --lr, or look at these tiles",
        )
    run.optimizer.step()
    return dict(zip(names, numbers, strict=True))


def _seed_of_step(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _validate(run: Run, store: Store, tiles: np.ndarray, config: FitConfig, device: torch.device) -> float | None:
    """Score the validation tiles as `evaluate` does; return the mean Dice over objects and prompt kinds."""
    if not len(tiles):
        return None
    protocol = Protocol("val", config.prompt_kinds, config.negatives, baselines=())
    answers = answer_tiles(store, tiles.tolist(), {"model": MaskPredictor(run.model, device)}, protocol)
    tables = score_answers(answers)
    run.val = summarize(tables, store)["model"]
    return float(np.mean([np.mean(table.dice) for table in tables["model"].values()]))


def _content(run: Run, config: FitConfig, sampler: EpochSampler) -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain Python values alone."""
    return {
        "model": run.model.sam.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": None,
        "epoch": run.steps // len(sampler),
        "steps": run.steps,
        "loss": run.loss,
        "time_elapsed": run.elapsed_s,
        "best_meter_values": {} if run.best_score is None else {"val_dice": run.best_score},
        "model_size": config.model,
        "image_size": config.image_size,
        "config": config.model_dump(mode="json"),
    }


def _describe(store: Store, config: FitConfig) -> dict[str, object]:
    return {
        **config.model_dump(mode="json"),
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "versions": {name: version(name) for name in ("bcss-sam2", "torch", "sam2", "zarr", "numpy")},
    }


def _summary(run: Run, config: FitConfig, sampler: EpochSampler, device: torch.device) -> dict[str, object]:
    # The first step of a process pays for start-up, so it says nothing of the rate.
    steady = run.history[1:] or run.history
    seconds = sum(record.step_s for record in steady)
    return {
        "steps": run.steps,
        "epochs": run.steps / len(sampler),
        "loss_first": run.history[0].loss if run.history else None,
        "loss_last": run.loss,
        "images_per_s": sum(record.images for record in steady) / seconds if seconds else None,
        "data_wait_fraction": sum(record.data_wait_s for record in steady) / seconds if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "objects_dropped": sum(record.dropped for record in run.history),
        "seconds": run.elapsed_s,
        "val": run.val,
        "best_val_dice": run.best_score,
        "prompt": config.prompt,
    }


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
