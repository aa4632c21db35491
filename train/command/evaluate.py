"""`bcss-train evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, shown_on
from train.backbone.catalog import ModelSize
from train.choices import (
    BASELINES,
    MAX_JITTER,
    PROPAGATED_PROMPTS,
    STORED_CHOICES,
    BaselineName,
    DeviceChoice,
    SplitChoice,
    StoredChoice,
)
from train.command.flags import ImageSize, command_line, finite, refuse_flags

if TYPE_CHECKING:
    from train.propagate.run import PropagationSettings


def _each_of(names: tuple[str, ...], values: list[str] | None) -> list[str]:
    # typer accepts a Literal for a single value, but not yet for a repeatable option.
    for value in values or []:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
    return values or []


def _baselines(values: list[str] | None) -> list[str]:
    return _each_of(BASELINES, values)


def _prompts(values: list[str] | None) -> list[str]:
    return _each_of((*STORED_CHOICES, "mask"), values)


def _shares(text: str | None) -> str | None:
    for share in text.split(",") if text else ():
        try:
            is_share = 0 < float(share) <= MAX_JITTER
        except ValueError:
            is_share = False
        if not is_share:
            raise typer.BadParameter(f"{share!r} is not a number above 0 and up to {MAX_JITTER}")
    return text


_FLAGS_OF_PROPAGATION = (
    *("store", "out", "checkpoint", "model", "image_size", "split", "prompt", "propagate", "allow_seen"),
    # These two change nothing, but they are harmless and often stand in scripts.
    *("overwrite", "device", "zero_shot", "workers"),
)


def evaluate(
    context: typer.Context,
    store: Annotated[str, typer.Argument(help="Store that bcss-prep built: a path or a URL.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and overlays.png.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Checkpoint to score; may be repeated. Default NAME: run and file, such as RUN/best.",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(BASELINES),
            callback=_baselines,
            help="Baseline to score; may be repeated. With --checkpoint, all baselines are scored, and --save-masks "
            "and --stitch also write the masks of the named ones.",
        ),
    ] = None,
    model: Annotated[
        ModelSize | None,
        typer.Option(help="Network of official checkpoints, if it cannot be found from their weights."),
    ] = None,
    image_size: ImageSize = None,
    split: Annotated[
        SplitChoice | None,
        typer.Option(help="Split whose tiles are scored.", show_default="test, or what the store has"),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join((*STORED_CHOICES, "mask")),
            callback=_prompts,
            help="Prompt; may be repeated. mixed: box and centroid; mask: that of the first frame, with --propagate.",
        ),
    ] = None,
    negatives: Annotated[bool, typer.Option("--negatives/--no-negatives", help="Append negative clicks.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average logits over the eight flips and rotations.")] = False,
    corrections: Annotated[int, typer.Option(min=0, help="Simulated clicks on the error, after the prompt.")] = 0,
    jitter: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,...",
            callback=_shares,
            help="Score again with boxes and clicks moved by up to this share of the object's size, such as 0.05,0.1.",
        ),
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="LOGIT|val", help="A pixel whose logit is above this is in the mask; val: choose it on that split."
        ),
    ] = "0",
    tolerance_um: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Tolerance of surface Dice in micrometers; 0 leaves this score out."),
    ] = 2.0,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot/--no-zero-shot",
            help="Also score the weights that training started from; not with --propagate.",
        ),
    ] = True,
    primary: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL,MINUS,PROMPT",
            help="Primary comparison, to be chosen before you see scores; the others are adjusted for multiple "
            "testing. Default: the first model minus its initial weights, under the first prompt.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Model or baseline from which each model's difference is computed; may be repeated. Default: its "
            "start and the best baseline.",
        ),
    ] = None,
    propagate: Annotated[
        bool,
        typer.Option(
            "--propagate", help="Follow objects through sequences from their first frame; write J and F of DAVIS."
        ),
    ] = False,
    save_masks: Annotated[
        bool, typer.Option("--save-masks", help="Write the models' masks as PNG and COCO JSON.")
    ] = False,
    stitch: Annotated[bool, typer.Option("--stitch", help="Write one palettized PNG per ROI, and score it.")] = False,
    allow_seen: Annotated[
        bool,
        typer.Option("--allow-seen", help="Score test patients that a model was trained on; each number is marked."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier evaluation in that folder.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read tiles ahead.")] = 1,
    device: Annotated[DeviceChoice, typer.Option(help="auto uses CUDA if it is available.")] = "auto",
) -> None:
    """Score checkpoints and baselines on the same objects, with the same prompts."""
    from train.evaluation.run import run_evaluation
    from train.evaluation.settings import EvaluationSettings
    from train.output.console_table import print_scores
    from train.output.evaluation_files import check_no_evaluation
    from train.propagate.run import PropagationSettings

    if not checkpoint and not baseline:
        raise typer.BadParameter("give at least one --checkpoint or --baseline")
    check_no_evaluation(out, overwrite=overwrite)
    if propagate:
        refuse_flags(context, "--propagate", lambda name: name in _FLAGS_OF_PROPAGATION)
        kind, *others = prompt or ["box"]
        if others or kind not in PROPAGATED_PROMPTS:
            given = " and ".join((kind, *others))
            raise typer.BadParameter(f"--propagate takes one of {', '.join(PROPAGATED_PROMPTS)}, not {given}")
        models = tuple(checkpoint or ())
        _propagate(PropagationSettings(store, models, kind, split, allow_seen, model, image_size, device), out)
        return
    if "mask" in (prompt or ()):
        raise typer.BadParameter("--prompt mask is the mask of a first frame; give --propagate too")
    named = cast("tuple[BaselineName, ...]", tuple(baseline or ()))
    settings = EvaluationSettings(
        store=store,
        checkpoints=tuple(checkpoint or ()),
        baselines=BASELINES if checkpoint else named,
        model=model,
        image_size=image_size,
        split=split,
        prompts=cast("tuple[StoredChoice, ...]", tuple(prompt or ("mixed",))),
        negatives=negatives,
        tta=tta,
        corrections=corrections,
        jitter=tuple(float(share) for share in jitter.split(",")) if jitter else (),
        threshold=threshold,
        tolerance_um=tolerance_um,
        zero_shot=zero_shot,
        primary=tuple(primary.split(",")) if primary else None,
        against=tuple(against or ()),
        save_masks=save_masks,
        baseline_masks=named,
        stitch=stitch,
        allow_seen=allow_seen,
        device=device,
    )
    lost = interrupted_as_line("no scores were written; run the same command to start again")
    with lost, progress_bar("evaluate", "tile") as bar:
        found = run_evaluation(settings, out, command=command_line(), workers=workers, on_tile=shown_on(bar))
    print_scores(found.result)
    if threshold == "val":
        for name, value in found.result["protocol"]["thresholds"].items():
            typer.echo(printable(f"threshold of {name}, chosen on val: a logit of {value:g}"))
    if save_masks or stitch:
        nothing = json.loads((out / "classes.json").read_text(encoding="utf-8"))["nothing"]
        for folder in ["masks"] * save_masks + ["stitched"] * stitch:
            typer.echo(f"{folder:<8} {printable(out / folder)}; pixels without a mask have the value {nothing}")
    typer.echo(f"numbers  {printable(out / 'metrics.json')}")
    typer.echo(f"picture  {printable(out / 'overlays.png')}")
    typer.echo(f"report   {printable(out / 'report.html')}")


def _propagate(settings: PropagationSettings, out: Path) -> None:
    from train.propagate.result import table
    from train.propagate.run import run_propagation

    for line in table(run_propagation(settings, out)):
        typer.echo(printable(line))
    typer.echo(f"numbers  {printable(out / 'propagation.json')}")
