"""The command `bcss-train`: parse, call, report. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from schemas.command.console import printable, progress_bar, run_command, show_version
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
    help="Fine-tune SAM 2 on a store, and score checkpoints. --debug: tracebacks, timings; --log-json: JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options of the program itself."""


def _multiple_of_32(value: int | None) -> int | None:
    if value is not None and (value % 32 or value < 128):
        raise typer.BadParameter(f"{value} is not a multiple of 32 from 128 on")
    return value


def _each_of(names: tuple[str, ...], values: list[str] | None) -> list[str]:
    # typer takes a Literal for one value and not yet for a repeatable option.
    for value in values or []:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
    return values or []


def _baselines(values: list[str] | None) -> list[str]:
    return _each_of(BASELINES, values)


def _prompts(values: list[str] | None) -> list[str]:
    return _each_of(STORED_CHOICES, values)


ImageSize = Annotated[int | None, typer.Option(callback=_multiple_of_32, help="Side of the model's input, pixels.")]


@app.command()
def fit(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="A store that bcss-prep built, a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("finetune_logs"),
    model: Annotated[ModelSize | None, typer.Option(help="Which SAM 2.1.", show_default="tiny")] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from; random weights without it.")] = None,
    image_size: Annotated[
        int | None, typer.Option(callback=_multiple_of_32, help="Side of the input, pixels.", show_default="1024")
    ] = None,
    prompt: Annotated[
        PromptChoice | None,
        typer.Option(
            help="mixed: box or click of the store for each image; random: drawn from the mask.", show_default="mixed"
        ),
    ] = None,
    negatives: Annotated[
        bool | None, typer.Option("--negatives/--no-negatives", help="Append stored negative clicks.")
    ] = None,
    corrections: Annotated[
        int | None, typer.Option(min=0, help="Simulated clicks on the error after the prompt.", show_default="0")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the tiles.", show_default="20")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step and process.", show_default="4")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches a step.", show_default="1")] = None,
    max_objects: Annotated[int | None, typer.Option(min=1, help="Objects an image.", show_default="3")] = None,
    balance: Annotated[
        BalanceChoice | None, typer.Option(help="classes: draw them equally often.", show_default="none")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Loading processes; 0 loads in this one.", show_default="2")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak rate of prompt encoder and decoder.", show_default="5e-06")
    ] = None,
    vision_lr: Annotated[
        float | None, typer.Option(help="Peak rate of the image encoder.", show_default="3e-06")
    ] = None,
    warmup_steps: Annotated[int | None, typer.Option(min=0, help="Rise of the rates.", show_default="0")] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Factor of the rate from layer to layer of the trunk.", show_default="0.9")
    ] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of a moving average of the weights; 0 keeps none.")] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Modules that stay, or what is trained: decoder_only, decoder_and_neck, all.")
    ] = None,
    lora: Annotated[int | None, typer.Option(min=0, help="Rank of adapters in the image encoder.")] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="Flip and turn tiles.", show_default="augment")
    ] = None,
    save_every_steps: Annotated[int | None, typer.Option(min=0, help="Save within epochs too.")] = None,
    patience: Annotated[int | None, typer.Option(min=0, help="Stop after epochs without a better score.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of weights, order, prompts, augmentation.", show_default="0")
    ] = None,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="auto takes CUDA where there is one.", show_default="auto")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Compile encoder, decoder and loss.")] = None,  # noqa: A002
    checkpoint_activations: Annotated[
        bool | None,
        typer.Option("--checkpoint-activations", help="Compute a trained encoder's activations twice, for memory."),
    ] = None,
    cache_features: Annotated[
        bool | None,
        typer.Option("--cache-features/--no-cache-features", help="Keep a frozen encoder's features beside the store."),
    ] = None,
    report: Annotated[
        bool | None, typer.Option("--report/--no-report", help="Write report.html at the end.", show_default="report")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of these settings and more; flags go on top.")] = None,
) -> None:
    """Fine-tune SAM 2 with the store's own prompts."""
    from schemas.store.store import open_store
    from train.config import flags_as_settings, read_config
    from train.fit.trainer import fit as run_fit

    settings = read_config(config, flags_as_settings(context.params))
    opened = open_store(store)
    silent = int(os.environ.get("RANK", "0")) > 0
    with progress_bar("fit", "step", silent=silent) as bar:
        summary = run_fit(opened, settings, out, resume=resume, on_step=lambda record, total: _show(bar, record, total))
    if silent:
        return
    if summary["stopped_by"]:
        typer.echo(f"stopped by {summary['stopped_by']} after step {summary['steps']}; --resume goes on")
    first = summary["loss_first"]
    typer.echo(
        f"{summary['steps']} steps" + ("" if first is None else f", loss {first:.3f} -> {summary['loss_last']:.3f}")
    )
    typer.echo(f"checkpoint  {printable(out / 'checkpoints' / 'checkpoint.pt')}")
    typer.echo(f"numbers     {printable(out / 'summary.json')}")
    if (out / "report.html").exists():
        typer.echo(f"report      {printable(out / 'report.html')}")
    typer.echo(f"curves      tensorboard --logdir {printable(out / 'tensorboard')}")


@app.command()
def evaluate(
    store: Annotated[str, typer.Argument(help="A store that bcss-prep built.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and overlays.png.")],
    checkpoint: Annotated[list[Path] | None, typer.Option(help="A model to score; may be repeated.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(BASELINES), callback=_baselines, help="Score these alone; beside a checkpoint all stand."
        ),
    ] = None,
    model: Annotated[ModelSize | None, typer.Option(help="Which model an official checkpoint is of.")] = None,
    image_size: ImageSize = None,
    split: Annotated[SplitChoice, typer.Option(help="Which tiles.")] = "test",
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(STORED_CHOICES), callback=_prompts, help="May be repeated; mixed is box and centroid."
        ),
    ] = None,
    negatives: Annotated[bool, typer.Option("--negatives/--no-negatives", help="Append negative clicks.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average logits over the eight flips and quarter turns.")] = False,
    corrections: Annotated[int, typer.Option(min=0, help="Simulated clicks on the error after the prompt.")] = 0,
    threshold: Annotated[str, typer.Option(metavar="LOGIT|val", help="Of masks; val chooses it on that split.")] = "0",
    tolerance_um: Annotated[float, typer.Option(min=0, help="Of outlines, for surface Dice.")] = 2.0,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot/--no-zero-shot", help="Score what a checkpoint was trained from, too.")
    ] = True,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write masks as PNG and COCO JSON.")] = False,
    stitch: Annotated[bool, typer.Option("--stitch", help="Write a palettized PNG of each ROI.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Loading processes; 0 loads in this one.")] = 0,
    device: Annotated[DeviceChoice, typer.Option(help="auto takes CUDA where there is one.")] = "auto",
) -> None:
    """Score checkpoints and baselines on the same objects with the same prompts."""
    from schemas.store.store import open_store
    from train.choices import prompt_kinds
    from train.model.predictor import load_predictors
    from train.output.console_table import print_scores
    from train.output.evaluation_files import write_evaluation
    from train.output.report import run_of, write_report
    from train.output.writers import evaluation_writers
    from train.runtime.device import pick_device
    from train.score.evaluate import evaluate as run_evaluate
    from train.score.initial_weights import load_initial_weights
    from train.score.protocol import ScoringProtocol
    from train.score.thresholds import with_thresholds

    if not checkpoint and not baseline:
        raise typer.BadParameter("give at least one --checkpoint or --baseline")
    opened = open_store(store)
    chosen = cast("list[StoredChoice]", prompt or ["mixed"])
    kinds: dict[PromptKind, None] = dict.fromkeys(kind for choice in chosen for kind in prompt_kinds(choice))
    protocol = ScoringProtocol(
        split, tuple(kinds), negatives, tta=tta, corrections=corrections, tolerance_um=tolerance_um or None
    )
    if not checkpoint and baseline:
        protocol = replace(protocol, baselines=tuple(cast("list[BaselineName]", baseline)))
    predictors = load_predictors(checkpoint or [], pick_device(device), model, image_size)
    if zero_shot:
        predictors |= load_initial_weights(checkpoint or [], pick_device(device))
    protocol = with_thresholds(threshold, opened, predictors, protocol, workers)
    sinks = evaluation_writers(opened, out, save_masks=save_masks, stitch=stitch)
    with progress_bar("evaluate", "tile") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = run_evaluate(opened, predictors, protocol, workers=workers, sinks=sinks, on_tile=show)
    write_evaluation(found, out)
    run = run_of(checkpoint[0]) if checkpoint else None
    write_report(out / "report.html", "Evaluation", opened, found, predictors, protocol, run)
    print_scores(found.result)
    if threshold == "val":
        for (name, kind), value in protocol.thresholds.items():
            typer.echo(printable(f"threshold of {name}, {kind}, chosen on val: a logit of {value:g}"))
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
    """Entry point of `bcss-train`."""
    run_command(app, "bcss-train")


if __name__ == "__main__":
    main()
