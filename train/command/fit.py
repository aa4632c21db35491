"""`bcss-train fit`."""

from __future__ import annotations

import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, show_step
from train.backbone.catalog import ModelSize
from train.choices import BalanceChoice, DeviceChoice, PromptChoice, RecipeName
from train.command.flags import command_line, multiple_of_32
from train.model.names import SEEN_MARK

if TYPE_CHECKING:
    from schemas.store.store import Store
    from train.config import FitConfig
    from train.runtime.run_log import StepRecord


def _patient_counts(text: str | None) -> str | None:
    """Check the value of `--curve`."""
    if text is not None and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise typer.BadParameter(f"{text} is not a list of numbers of patients, such as 1,5,20")
    return text


def fit(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Store that bcss-prep built: a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder for the results of the run.")] = Path("finetune_logs"),
    model: Annotated[
        ModelSize | None,
        typer.Option(help="Network: nano is a miniature, the others are SAM 2.1.", show_default="tiny"),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            # Text, because a path would lose the dot of `./nano`, which is a file.
            metavar="PATH|nano",
            help="Checkpoint to start from, or nano: a small model of this project, trained on synthetic tissue; it "
            "implies --model nano and --image-size 128. Without --init, weights are random.",
        ),
    ] = None,
    recipe: Annotated[
        RecipeName | None,
        typer.Option(help="Use the settings of a publication instead of the defaults; other flags override them."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(callback=multiple_of_32, help="Side of the network's input in pixels.", show_default="1024"),
    ] = None,
    prompt: Annotated[
        PromptChoice | None,
        typer.Option(
            help="mixed: a stored box or click, drawn per image; random: a box or click drawn from the mask; "
            "mask, with --frames: the mask of the first frame.",
            show_default="mixed",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames in a window of a sequence; 1: single images.", show_default="1")
    ] = None,
    frame_stride: Annotated[
        int | None, typer.Option(min=1, help="Step from one frame of a window to the next.", show_default="1")
    ] = None,
    reverse: Annotated[float | None, typer.Option(help="Share of windows read backwards.", show_default="0.0")] = None,
    corrected_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames of a window that get the clicks of --corrections.", show_default="1"),
    ] = None,
    negatives: Annotated[
        bool | None, typer.Option("--negatives/--no-negatives", help="Append the store's negative clicks.")
    ] = None,
    corrections: Annotated[
        int | None, typer.Option(min=0, help="Simulated clicks on the error, after the prompt.", show_default="0")
    ] = None,
    mask_prompt_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the correction clicks that come with the previous pass's mask.", show_default="1.0"
        ),
    ] = None,
    box_jitter: Annotated[
        float | None,
        typer.Option(help="Largest random move of a stored box's sides, as a share of its length.", show_default="0.0"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training tiles.", show_default="20")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per batch and process.", show_default="4")
    ] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches per step.", show_default="1")] = None,
    max_objects: Annotated[int | None, typer.Option(min=1, help="Maximum objects per image.", show_default="3")] = None,
    balance: Annotated[
        BalanceChoice | None,
        typer.Option(
            help="classes: draw objects so that all classes come equally often, however few tiles a class is on.",
            show_default="none",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Data-loading processes; 0 loads in the training process.", show_default="2"),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of prompt encoder and mask decoder.", show_default="5e-06")
    ] = None,
    vision_lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of the image encoder.", show_default="3e-06")
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps in which the learning rates rise.", show_default="0")
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(help="Factor on the learning rate per trunk layer, from the top down.", show_default="0.9"),
    ] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' moving average; 0 keeps none.")] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            help="Modules to freeze, or a preset: decoder_only and decoder_and_neck train only these parts, memory "
            "freezes what only sequences train, none freezes nothing."
        ),
    ] = None,
    lora: Annotated[
        int | None, typer.Option(min=0, help="Rank of LoRA adapters in the image encoder; 0 uses none.")
    ] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="Flip and rotate tiles.", show_default="augment")
    ] = None,
    save_every_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps between saves within an epoch; 0: only at its end.")
    ] = None,
    keep_previous: Annotated[
        bool | None,
        typer.Option(
            "--keep-previous/--no-keep-previous",
            help="Keep the save before the last one, in case the last one is damaged.",
            show_default="keep-previous",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Stop after this many epochs without a better score.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of initial weights, order, prompts and augmentation.", show_default="0"),
    ] = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="auto uses CUDA if it is available.", show_default="auto")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Compile encoder, decoder and loss.")] = None,  # noqa: A002
    checkpoint_activations: Annotated[
        bool | None,
        typer.Option("--checkpoint-activations", help="Recompute a trained encoder's activations to save memory."),
    ] = None,
    cache_features: Annotated[
        bool | None,
        typer.Option(
            "--cache-features/--no-cache-features", help="Keep a frozen encoder's features on disk, beside the store."
        ),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Score the best and the last weights beside the start at the end, and write report.html.",
            show_default="report",
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            callback=_patient_counts,
            help="Train on these numbers of patients, such as 1,5,20, and on all; score them on the test split.",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what the run needs: parameters, steps, memory, largest batch, time."),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with these settings and more; flags override it.")
    ] = None,
) -> None:
    """Fine-tune SAM 2 with the prompts of the store."""
    from schemas.store.store import open_store
    from train.config import flags_as_settings, read_config
    from train.fit.trainer import fit as run_fit

    settings = read_config(config, flags_as_settings(context.params))
    opened = open_store(store)
    if plan and curve:
        raise typer.BadParameter("--plan plans one run; leave --curve out")
    if plan:
        _print_plan(opened, settings)
        return
    command = command_line()
    if curve:
        _fit_curve(opened, settings, curve, out, resume=resume, command=command)
        return
    silent = int(os.environ.get("RANK", "0")) > 0
    continues = "--resume continues from the last checkpoint"
    with interrupted_as_line(continues), progress_bar("fit", "step", silent=silent) as bar:
        on_step, on_tile = partial(_show, bar), TileBar(bar)
        summary = run_fit(opened, settings, out, resume=resume, on_step=on_step, on_tile=on_tile, command=command)
    if silent:
        return
    _print_end(summary, out, store, is_single=settings.frames == 1)


def _print_end(summary: dict[str, Any], out: Path, store: str, *, is_single: bool) -> None:
    """Print where the results of a run are, and what to do next."""
    from train.model.run_checkpoints import best_checkpoint, last_checkpoint

    if summary["stopped_by"]:
        typer.echo(f"stopped by {summary['stopped_by']} after step {summary['steps']}; --resume continues the run")
    first = summary["loss_first"]
    typer.echo(
        f"{summary['steps']} steps" + ("" if first is None else f", loss {first:.3f} -> {summary['loss_last']:.3f}")
    )
    if summary["best_is_start"] and not summary["stopped_by"]:
        # Its module imports all that the report needs, for which the first step must not wait.
        from train.fit.run_report import start_is_best

        typer.echo(start_is_best(summary["best_by"], summary["start_val"]))
    typer.echo(f"checkpoint  {printable(last_checkpoint(out))}")
    typer.echo(f"numbers     {printable(out / 'summary.json')}")
    if (out / "report.html").exists():
        typer.echo(f"report      {printable(out / 'report.html')}")
    typer.echo(f"curves      tensorboard --logdir {printable(out / 'tensorboard')}")
    best = last_checkpoint(out) if summary["best_val"] is None else best_checkpoint(out)
    if summary["best_val"] is not None:
        typer.echo(f"best        {printable(best)}")
    weights, scored, found = (shlex.quote(str(path)) for path in (best, out / "evaluation", out / "predictions"))
    how_scored, what = ("", "IMAGE --automatic") if is_single else (" --propagate", "FRAMES --first-mask MASK")
    evaluate = f"bcss-train evaluate {shlex.quote(store)} --checkpoint {weights}{how_scored} --out {scored}"
    typer.echo(f"next        {printable(evaluate)}")
    typer.echo(f"            {printable(f'bcss-train predict {weights} {what} --out {found}')}")


def _fit_curve(store: Store, settings: FitConfig, counts: str, out: Path, *, resume: bool, command: str) -> None:
    from train.curve.runs import CURVE_FILE, PLOT_FILE, fit_curve

    numbers = [int(part) for part in counts.split(",")]
    then = "--resume keeps finished runs and continues the last one"
    with interrupted_as_line(then), progress_bar("fit", "step") as bar:
        on_step, on_tile = partial(_show, bar), TileBar(bar)
        found = fit_curve(
            store, settings, numbers, out, resume=resume, on_step=on_step, on_tile=on_tile, command=command
        )
    if found is None:
        typer.echo(f"stopped; {then}")
        return
    kinds = list(found["points"][0]["scores"])
    typer.echo("  ".join([f"Dice on {found['split']:<12}", *(f"{kind:>12}" for kind in kinds)]))
    at_start = {f"{point['patients']} patients" for point in found["points"] if point["best_is_start"]}
    rows = {**found["baselines"], **found["start"]}
    rows |= {f"{point['patients']} patients": point["scores"] for point in found["points"]}
    for name, scores in rows.items():
        shown = name + " (start)" * (name in at_start) + SEEN_MARK * (name in found["seen_patients"])
        typer.echo("  ".join([f"{shown:<20}", *(f"{scores[kind]['dice']:>12.3f}" for kind in kinds)]))
    if at_start:
        typer.echo("(start): no epoch beat the start, so its weights were scored")
    for name, patients in found["seen_patients"].items():
        typer.echo(printable(f"{SEEN_MARK} {name} was {patients['said']}"))
    typer.echo(f"numbers     {printable(out / CURVE_FILE)}")
    typer.echo(f"plot        {printable(out / PLOT_FILE)}")


def _print_plan(store: Store, settings: FitConfig) -> None:
    from train.fit.plan import plan_run

    for line in plan_run(store, settings).lines():
        typer.echo(line)
    typer.echo("nothing was trained or written; leave out --plan to start the run")


def _show(bar: Any, record: StepRecord, total: int) -> None:
    rate = record.images / record.step_s
    wait = record.data_wait_s / record.step_s
    show_step(bar, record.step, total, f"loss {record.loss:.3f}, {rate:.1f} images/s, wait {wait:.0%}")


class TileBar:
    """A bar below the bar of steps while tiles are scored; it goes away when the last tile is done.

    Args:
        steps: The bar of steps. This bar is quiet if that one is, or if stderr is not a terminal.
    """

    def __init__(self, steps: Any) -> None:
        self._is_quiet = steps.disable or not sys.stderr.isatty()
        self._bar: Any = None

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Show what is done, and how many tiles are done of how many."""
        from tqdm import tqdm

        if self._is_quiet:
            return
        if self._bar is None:
            self._bar = tqdm(desc=doing, unit="tile", total=total, leave=False, mininterval=0.2)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()
            self._bar = None
