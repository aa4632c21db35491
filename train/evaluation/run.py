"""Run one evaluation: load the models, score them, and write the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from schemas.store.store import open_store
from train.evaluation.provenance import made_by
from train.evaluation.repeats import repeated_runs, runs_of
from train.evaluation.settings import EvaluationSettings
from train.model.loading import load_predictors
from train.model.names import name_checkpoints
from train.output.evaluation_files import remove_optional, write_evaluation
from train.output.report import run_of, write_report
from train.output.writers import WrittenModels, evaluation_writers, roi_scorer
from train.runtime.device import pick_device
from train.runtime.folder_lock import locked_folder
from train.score.evaluate import Evaluation, evaluate
from train.score.initial_weights import load_initial_weights
from train.score.thresholds import with_thresholds


def run_evaluation(
    settings: EvaluationSettings,
    out: Path,
    *,
    command: str = "",
    workers: int = 1,
    on_tile: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score models and baselines, and write `metrics.json`, the report and the other files.

    Args:
        settings: What is scored, and how.
        out: The folder to write to; the files of an earlier evaluation are replaced.
        command: The command line, for the report; empty leaves it out.
        workers: Number of threads that read tiles ahead.
        on_tile: Function called with the number of finished tiles and the number of all tiles.

    Raises:
        BcssError: The store or a checkpoint cannot be used, or the settings contradict them; see `evaluate`.
    """
    store = open_store(settings.store)
    protocol = settings.protocol(store)
    named = name_checkpoints(settings.checkpoints)
    device = pick_device(settings.device)
    predictors = load_predictors(named, device, settings.model, settings.image_size)
    if settings.zero_shot:
        initial = load_initial_weights(named, device, at_full_size=True)
        predictors |= initial.predictors
        protocol = replace(protocol, start_of=initial.start_of)
    runs = runs_of(named)
    protocol = with_thresholds(settings.threshold, store, predictors, protocol, workers)
    with locked_folder(out):
        remove_optional(out)
        models = WrittenModels(settings.baseline_masks)
        sinks = evaluation_writers(store, out, models, save_masks=settings.save_masks)
        rois = roi_scorer(store, out, models, protocol.tolerance_um) if settings.stitch else None
        sinks += (rois,) if rois else ()
        found = evaluate(store, predictors, protocol, workers=workers, sinks=sinks, on_tile=on_tile)
        result = {**found.result, "settings": settings.model_dump(mode="json"), "made_by": made_by(device, command)}
        if rois:
            rois.write(out / "rois.csv")
            result["rois"] = rois.summary()
        repeats = repeated_runs(runs, found.result["models"])
        if repeats:
            result["repeats"] = repeats
        found = replace(found, result=result)
        write_evaluation(found, out)
        run = run_of(named[0].path) if named else None
        write_report(out / "report.html", "Evaluation", store, found, predictors, protocol, run)
    return found
