"""Fine-tune SAM 2 on a store. This file shows one run from start to end.

A run depends only on its configuration and its store. The order of tiles is drawn from (seed, epoch), and everything
random about a sample from (seed, epoch, tile, repeat). The model draws nothing. So on one device a resumed run equals
an uninterrupted run bit for bit, and the numbers of loading and training processes do not change the data of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from schemas.command.stage_timer import timed
from schemas.errors import CheckpointError, TrainingError
from schemas.script_guard import refuse_while_imported
from schemas.store.store import Store
from train.config import FitConfig
from train.fit.epoch_end import end_epoch, validate_start
from train.fit.finish import check_replaces_only_own, describe_run, finish_run, write_json
from train.fit.optimizer import set_learning_rates
from train.fit.prepare import PreparedRun, prepare_run
from train.fit.state import Run, previous_of, save_last
from train.fit.step_batches import LoadedStep
from train.fit.validate import OnTile
from train.model.run_checkpoints import last_checkpoint
from train.runtime.device import failed_compilation_as_error, out_of_memory_as_error, pick_device
from train.runtime.distributed import open_world
from train.runtime.folder_lock import locked_by_first
from train.runtime.machine import Machine
from train.runtime.run_log import RunLog, StepRecord
from train.runtime.stop import stop_on_signals

OnStep = Callable[[StepRecord, int], None]


def fit(
    store: Store,
    config: FitConfig,
    out: Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_tile: OnTile | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Train a model, and write checkpoints, logs and `summary.json`.

    Args:
        store: The store with tiles and prompts.
        config: Settings of the run.
        out: Folder for the results of the run.
        resume: Whether to continue from the folder's last checkpoint, if there is one.
        on_step: Function called after each step with the step's record and the run's number of steps.
        on_tile: Function called after each tile that is scored for a validation or for the report.
        command: The command line, for the report; empty leaves it out.

    Returns:
        The content of `summary.json`; empty in processes other than the main one.

    Raises:
        StoreError: The store has no training tile, or lacks the prompts.
        ConfigError: The configuration does not fit the store, the machine or the resumed run.
        CheckpointError: A checkpoint cannot be read or written, or the folder holds another run.
        TrainingError: Another run writes to the folder, the model cannot be compiled, the loss is not finite, a loading
            process failed, the disk is full, or memory ran out.
    """
    refuse_while_imported("fit")
    device_type = pick_device(config.device).type
    with (
        open_world(device_type) as world,
        stop_on_signals() as stop,
        out_of_memory_as_error(config),
        failed_compilation_as_error(config),
    ):
        device = torch.device(device_type, world.gpu) if device_type == "cuda" else torch.device("cpu")
        with locked_by_first(out, world):
            # The loading processes have ended when `_train` returns, before the report is made.
            run = _train(
                store, config, out, Machine(world, device, stop), resume=resume, on_step=on_step, on_tile=on_tile
            )
            return finish_run(run, store, out, device, stop.by, on_tile, command) if world.is_main else {}


def _train(
    store: Store,
    config: FitConfig,
    out: Path,
    machine: Machine,
    *,
    resume: bool,
    on_step: OnStep | None,
    on_tile: OnTile | None,
) -> Run:
    checkpoint, is_main = last_checkpoint(out), machine.world.is_main
    if not resume and (checkpoint.exists() or previous_of(checkpoint).exists()):
        raise CheckpointError(
            checkpoint, "belongs to an earlier run", "give --resume to continue it, or choose another --out"
        )
    if not checkpoint.exists() and not previous_of(checkpoint).exists():
        check_replaces_only_own(out)
    with timed("set up"):
        prepared = prepare_run(store, config, machine, checkpoint if resume else None)
    run, policies = prepared.run, prepared.policies
    machine.world.wait()
    if is_main:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", describe_run(store, run))
    # The log of a run that was saved after its start was validated keeps the line of that validation.
    kept_steps = run.steps if run.scored_steps >= 0 else None
    with closing(prepared.batches), RunLog(out if is_main else None, kept_steps) as log:
        while not machine.must_stop():
            if policies.must_validate(run):
                validate = end_epoch if run.steps else validate_start
                validate(run, store, prepared.val_tiles, machine, log, checkpoint, on_tile)
                continue
            if policies.must_end(run):
                break
            loaded = prepared.batches.load(run.steps)
            if loaded is None:
                continue
            record = _step(prepared, loaded, machine, out)
            log.step(record)
            if on_step:
                on_step(record, policies.total_steps)
            if is_main and policies.must_save(run):
                save_last(run, checkpoint)
    if is_main and machine.stop:
        save_last(run, checkpoint)
    return run


def _step(prepared: PreparedRun, loaded: LoadedStep, machine: Machine, out: Path) -> StepRecord:
    """Make one step, and return its record."""
    run, total_steps = prepared.run, prepared.policies.total_steps
    rates = set_learning_rates(run.optimizer, run.steps, total_steps, run.config.optimizer)
    try:
        with timed("forward, backward, update"):
            launched = prepared.train_step.launch(loaded.batches)
        prepared.batches.load_ahead(run.steps + 1)
        with timed("wait for the device"):
            values, counts = launched.read()
    except TrainingError as error:
        failed = {"step": run.steps + 1, "tiles": loaded.tiles}
        write_json(out / f"failed_batch.{machine.world.rank}.json", failed)
        raise TrainingError(f"step {run.steps + 1}, {error.args[0]}", *error.args[1:]) from error
    epoch = run.epochs_done + 1
    run.steps += 1
    run.loss = values["loss"]
    if run.ema is not None:
        run.ema.update_parameters(run.model)
    took_s = prepared.batches.lap()
    run.elapsed_s += took_s
    return StepRecord(
        step=run.steps,
        epoch=epoch,
        **values,
        lr=rates.get("decoder", 0.0),
        vision_lr=rates.get("vision", 0.0),
        images=len(loaded.tiles) * run.config.frames,
        **counts,
        data_wait_s=loaded.wait_s,
        step_s=took_s,
        tiles=loaded.tiles,
        by_class={str(code): count for code, count in launched.by_class.items()},
    )
