"""The command `bcss-train`: parse the flags, call the library, print the results. Heavy imports wait for a command."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, run_command, show_version
from train.backbone.catalog import ModelSize
from train.choices import (
    BASELINES,
    STORED_CHOICES,
    BalanceChoice,
    BaselineName,
    DeviceChoice,
    PromptChoice,
    SplitChoice,
    StoredChoice,
)

if TYPE_CHECKING:
    from schemas.prompt_kinds import PromptKind
    from train.runtime.run_log import StepRecord

app = typer.Typer(
    help="Fine-tune SAM 2 on a store, and score checkpoints. --debug: tracebacks and timings; --log-json: JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Define the options of the program itself."""


def _multiple_of_32(value: int | None) -> int | None:
    if value is not None and (value % 32 or value < 128):
        raise typer.BadParameter(f"{value} is not a multiple of 32 that is at least 128")
    return value


def _each_of(names: tuple[str, ...], values: list[str] | None) -> list[str]:
    # typer accepts a Literal for a single value, but not yet for a repeatable option.
    for value in values or []:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
    return values or []


def _baselines(values: list[str] | None) -> list[str]:
    return _each_of(BASELINES, values)


def _prompts(values: list[str] | None) -> list[str]:
    return _each_of(STORED_CHOICES, values)


ImageSize = Annotated[int | None, typer.Option(callback=_multiple_of_32, help="Side of the network's input in pixels.")]


@app.command()
def fit(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Store that bcss-prep built: a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder for the results of the run.")] = Path("finetune_logs"),
    model: Annotated[
        ModelSize | None,
        typer.Option(help="Network: nano is a miniature, the others are SAM 2.1.", show_default="tiny"),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from; without it, weights are random.")] = None,
    image_size: Annotated[
        int | None,
        typer.Option(callback=_multiple_of_32, help="Side of the network's input in pixels.", show_default="1024"),
    ] = None,
    prompt: Annotated[
        PromptChoice | None,
        typer.Option(
            help="mixed: a stored box or click, drawn per image; random: a box or click drawn from the mask.",
            show_default="mixed",
        ),
    ] = None,
    negatives: Annotated[
        bool | None, typer.Option("--negatives/--no-negatives", help="Append the store's negative clicks.")
    ] = None,
    corrections: Annotated[
        int | None, typer.Option(min=0, help="Simulated clicks on the error, after the prompt.", show_default="0")
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
        typer.Option(help="classes: draw objects so that all classes come equally often.", show_default="none"),
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
            help="Modules to freeze, or a preset that names what is trained: decoder_only, decoder_and_neck, all."
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
        bool | None, typer.Option("--report/--no-report", help="Write report.html at the end.", show_default="report")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with these settings and more; flags override it.")
    ] = None,
) -> None:
    """Fine-tune SAM 2 with the prompts of the store."""
    from schemas.store.store import open_store
    from train.config import flags_as_settings, read_config
    from train.fit.finish import start_is_best
    from train.fit.trainer import fit as run_fit

    settings = read_config(config, flags_as_settings(context.params))
    opened = open_store(store)
    silent = int(os.environ.get("RANK", "0")) > 0
    continues = "--resume continues from the last checkpoint"
    with interrupted_as_line(continues), progress_bar("fit", "step", silent=silent) as bar:
        summary = run_fit(opened, settings, out, resume=resume, on_step=lambda record, total: _show(bar, record, total))
    if silent:
        return
    if summary["stopped_by"]:
        typer.echo(f"stopped by {summary['stopped_by']} after step {summary['steps']}; --resume continues the run")
    first = summary["loss_first"]
    typer.echo(
        f"{summary['steps']} steps" + ("" if first is None else f", loss {first:.3f} -> {summary['loss_last']:.3f}")
    )
    if summary["best_is_start"] and not summary["stopped_by"]:
        typer.echo(start_is_best(summary["best_by"], summary["start_val"]))
    typer.echo(f"checkpoint  {printable(out / 'checkpoints' / 'checkpoint.pt')}")
    typer.echo(f"numbers     {printable(out / 'summary.json')}")
    if (out / "report.html").exists():
        typer.echo(f"report      {printable(out / 'report.html')}")
    typer.echo(f"curves      tensorboard --logdir {printable(out / 'tensorboard')}")
    best = out / "checkpoints" / ("checkpoint.pt" if summary["start_val"] is None else "best.pt")
    command = f"bcss-train evaluate {shlex.quote(store)} --checkpoint {shlex.quote(str(best))}"
    typer.echo(f"next        {printable(command)} --out {printable(shlex.quote(str(out / 'evaluation')))}")


@app.command()
def evaluate(
    store: Annotated[str, typer.Argument(help="Store that bcss-prep built: a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and overlays.png.")],
    checkpoint: Annotated[list[Path] | None, typer.Option(help="Checkpoint to score; may be repeated.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(BASELINES),
            callback=_baselines,
            help="Score these alone; with a checkpoint, all are scored.",
        ),
    ] = None,
    model: Annotated[ModelSize | None, typer.Option(help="Network of an official checkpoint.")] = None,
    image_size: ImageSize = None,
    split: Annotated[
        SplitChoice | None,
        typer.Option(help="Split whose tiles are scored.", show_default="test, or what the store has"),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(STORED_CHOICES),
            callback=_prompts,
            help="Prompt; may be repeated. mixed: box and centroid.",
        ),
    ] = None,
    negatives: Annotated[bool, typer.Option("--negatives/--no-negatives", help="Append negative clicks.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average logits over the eight flips and rotations.")] = False,
    corrections: Annotated[int, typer.Option(min=0, help="Simulated clicks on the error, after the prompt.")] = 0,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="LOGIT|val", help="A pixel whose logit is above this is in the mask; val: choose it on that split."
        ),
    ] = "0",
    tolerance_um: Annotated[
        float, typer.Option(min=0, help="Tolerance of surface Dice in micrometers; 0 leaves this score out.")
    ] = 2.0,
    zero_shot: Annotated[
        bool,
        typer.Option("--zero-shot/--no-zero-shot", help="Also score the weights that a checkpoint was trained from."),
    ] = True,
    primary: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL,MINUS,PROMPT",
            help="Comparison that you name before you look; the others are adjusted for their number. The first model "
            "minus its start, under the first prompt, unless given.",
        ),
    ] = None,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write masks as PNG and COCO JSON.")] = False,
    stitch: Annotated[bool, typer.Option("--stitch", help="Write one palettized PNG per ROI, and score it.")] = False,
    allow_seen: Annotated[
        bool,
        typer.Option("--allow-seen", help="Score test patients that a model was trained on; each number is marked."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier evaluation in that folder.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Data-loading processes; 0 loads in the main process.")] = 0,
    device: Annotated[DeviceChoice, typer.Option(help="auto uses CUDA if it is available.")] = "auto",
) -> None:
    """Score checkpoints and baselines on the same objects, with the same prompts."""
    from schemas.store.store import open_store
    from train.choices import prompt_kinds
    from train.model.predictor import load_predictors
    from train.output.class_images import ClassImages
    from train.output.console_table import print_scores
    from train.output.evaluation_files import check_new, write_evaluation
    from train.output.report import run_of, write_report
    from train.output.writers import evaluation_writers, roi_scorer
    from train.runtime.device import pick_device
    from train.runtime.folder_lock import locked_folder
    from train.score.answers import default_split
    from train.score.evaluate import evaluate as run_evaluate
    from train.score.initial_weights import load_initial_weights
    from train.score.protocol import ScoringProtocol
    from train.score.thresholds import with_thresholds

    if not checkpoint and not baseline:
        raise typer.BadParameter("give at least one --checkpoint or --baseline")
    check_new(out, overwrite=overwrite)
    opened = open_store(store)
    chosen = cast("list[StoredChoice]", prompt or ["mixed"])
    kinds: dict[PromptKind, None] = dict.fromkeys(kind for choice in chosen for kind in prompt_kinds(choice))
    protocol = ScoringProtocol(
        split or default_split(opened),
        tuple(kinds),
        negatives,
        tta=tta,
        corrections=corrections,
        tolerance_um=tolerance_um or None,
        allow_seen=allow_seen,
        primary=tuple(primary.split(",")) if primary else None,
    )
    if not checkpoint and baseline:
        protocol = replace(protocol, baselines=tuple(cast("list[BaselineName]", baseline)))
    predictors = load_predictors(checkpoint or [], pick_device(device), model, image_size)
    if zero_shot:
        predictors |= load_initial_weights(checkpoint or [], pick_device(device))
    protocol = with_thresholds(threshold, opened, predictors, protocol, workers)
    lost = interrupted_as_line("no scores were written, and the same command starts again")
    with lost, locked_folder(out), progress_bar("evaluate", "tile") as bar:
        sinks = evaluation_writers(opened, out, save_masks=save_masks)
        rois = roi_scorer(opened, out, protocol.tolerance_um) if stitch else None
        sinks += (rois,) if rois else ()

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = run_evaluate(opened, predictors, protocol, workers=workers, sinks=sinks, on_tile=show)
        write_evaluation(found, out, rois)
        run = run_of(checkpoint[0]) if checkpoint else None
        write_report(out / "report.html", "Evaluation", opened, found, predictors, protocol, run)
    print_scores(found.result)
    if threshold == "val":
        for (name, kind), value in protocol.thresholds.items():
            typer.echo(printable(f"threshold of {name}, {kind}, chosen on val: a logit of {value:g}"))
    if save_masks or stitch:
        typer.echo(f"pixels without a mask have the value {ClassImages.from_store(opened).nothing_code}")
    typer.echo(f"numbers  {printable(out / 'metrics.json')}")
    typer.echo(f"picture  {printable(out / 'overlays.png')}")
    typer.echo(f"report   {printable(out / 'report.html')}")


def _show(bar: object, record: StepRecord, total: int) -> None:
    from tqdm import tqdm

    assert isinstance(bar, tqdm)
    bar.total = total
    rate = record.images / record.step_s
    wait = record.data_wait_s / record.step_s
    bar.set_postfix_str(f"loss {record.loss:.3f}, {rate:.1f} images/s, wait {wait:.0%}", refresh=False)
    bar.update(record.step - bar.n)


def main() -> None:
    """Run `bcss-train`."""
    run_command(app, "bcss-train")


if __name__ == "__main__":
    main()
