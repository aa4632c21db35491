"""`bcss-train evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar
from train.backbone.catalog import ModelSize
from train.choices import BASELINES, STORED_CHOICES, BaselineName, DeviceChoice, SplitChoice, StoredChoice
from train.command.flags import ImageSize

if TYPE_CHECKING:
    from schemas.prompt_kinds import PromptKind


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


def evaluate(
    store: Annotated[str, typer.Argument(help="Store that bcss-prep built: a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and overlays.png.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]PATH", help="Checkpoint to score; may be repeated. Named RUN/best unless given."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(BASELINES),
            callback=_baselines,
            help="Score only these; with a checkpoint, all baselines are scored.",
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
            help="Primary comparison, to be chosen before you see scores; the others are adjusted for their number. By "
            "default, the first model minus its initial weights, under the first prompt.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Model or baseline from which each model's difference is computed; may be repeated. Its start and the "
            "best baseline unless given.",
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
    from train.model.loading import load_predictors
    from train.model.names import name_checkpoints
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
        against=tuple(against or ()),
    )
    if not checkpoint and baseline:
        protocol = replace(protocol, baselines=tuple(cast("list[BaselineName]", baseline)))
    named = name_checkpoints(checkpoint or [])
    predictors = load_predictors(named, pick_device(device), model, image_size)
    if zero_shot:
        predictors |= load_initial_weights(named, pick_device(device))
    protocol = with_thresholds(threshold, opened, predictors, protocol, workers)
    lost = interrupted_as_line("no scores were written; run the same command to start again")
    with lost, locked_folder(out), progress_bar("evaluate", "tile") as bar:
        sinks = evaluation_writers(opened, out, save_masks=save_masks)
        rois = roi_scorer(opened, out, protocol.tolerance_um) if stitch else None
        sinks += (rois,) if rois else ()

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = run_evaluate(opened, predictors, protocol, workers=workers, sinks=sinks, on_tile=show)
        if rois:
            rois.write(out / "rois.csv")
            found = replace(found, result={**found.result, "rois": rois.summary()})
        write_evaluation(found, out)
        run = run_of(named[0].path) if named else None
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
