"""Write the model card of an exported checkpoint: its training data and its scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jinja2

from schemas.errors import ConfigError
from train.backbone.nano_start import NANO_START
from train.model.checkpoint import WeightsFile, load_checkpoint
from train.model.names import ORACLE_MARK, ORACLE_NOTE, without_dots
from train.model.promptable import PromptableSam
from train.model.seen_patients import SeenPatients, seen_patients
from train.model.trained_on import trained_on

Row = tuple[str, str, str, str, int, int]
"""Model, prompt, Dice, interval, objects and patients."""


def model_card(
    checkpoint: Path,
    content: Mapping[str, Any],
    model: PromptableSam,
    weights: WeightsFile,
    evaluation: Path | None,
    folder: str,
) -> str:
    """Write the model card of a checkpoint.

    Args:
        checkpoint: Path of the checkpoint.
        content: Content of the checkpoint.
        model: The model with the weights of the checkpoint.
        weights: Path and digest of the checkpoint's file.
        evaluation: Result folder of `bcss-train evaluate`; None shows the scores of the last validation.
        folder: Name of the folder that `transformers` loads.

    Returns:
        Markdown text with the header that model hubs read.

    Raises:
        ConfigError: The folder holds no evaluation, or an evaluation of other weights.
        CheckpointError: A record in the checkpoint is damaged.
    """
    seen = seen_patients(content, checkpoint)
    config = cast("dict[str, Any]", content.get("config") or {})
    origin = cast("dict[str, Any]", content.get("origin") or {})
    split, rows, note = _evaluated(evaluation, weights) if evaluation else ("val", _validated(content), "")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("train.export", ""), undefined=jinja2.StrictUndefined, autoescape=False
    )
    return environment.get_template("model_card.md.j2").render(
        name=_name(checkpoint),
        folder=folder,
        size=model.size,
        image_size=model.image_size,
        version=version("bcss-sam2"),
        trained_on=trained_on(content, checkpoint),
        trained=len(seen.trained) if seen else "not recorded",
        validated=len(seen.validated) if seen else "not recorded",
        drawn=_drawn_patients(seen) if seen else (0, 0),
        steps=content.get("steps", "not recorded"),
        start=_start(content, config),
        store_sha256=origin.get("data_sha256", "not recorded"),
        sha256=weights.sha256,
        split=split,
        # `best.pt`, which has no optimizer, was chosen by these scores; the last step was not.
        chosen=split == "val" and "optimizer" not in content,
        rows=rows,
        seen=note,
        oracle_note=ORACLE_NOTE if any(ORACLE_MARK in row[2] for row in rows) else "",
    )


def _drawn_patients(seen: SeenPatients) -> tuple[int, int]:
    """Return how many patients of training and of validation are drawn: those of this project's start."""
    start = seen_patients(load_checkpoint(NANO_START), NANO_START) or SeenPatients()
    return len(seen.trained & start.trained), len(seen.validated & start.validated)


def _name(checkpoint: Path) -> str:
    """Return a name for the model: that of the folder above `checkpoints`, or else the stem of the file."""
    folder = without_dots(checkpoint).parent
    return folder.parent.name if folder.name == "checkpoints" else checkpoint.stem


def _start(content: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    if config.get("init"):
        return f"`{Path(str(config['init'])).name}`, sha256 `{content.get('init_sha256')}`"
    return f"random weights, seed {config.get('seed', 0)}"


def _validated(content: Mapping[str, Any]) -> list[Row]:
    return [_row("this model", kind, means) for kind, means in (content.get("val") or {}).items()]


def _evaluated(folder: Path, weights: WeightsFile) -> tuple[str, list[Row], str]:
    path = folder / "metrics.json"
    try:
        result = json.loads(path.read_bytes())
        protocol, models = result["protocol"], result["models"]
        names = [name for name, file in protocol["weights"].items() if file["sha256"] == weights.sha256]
        marks = {name: dict.fromkeys(kinds, ORACLE_MARK) for name, kinds in result["oracles"].items()}
        rows = [
            _row(name, kind, means, marks.get(name, {}).get(kind, ""))
            for name, kinds in models.items()
            for kind, means in kinds.items()
        ]
        seen = result["seen_patients"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(path, f"is not the result of an evaluation ({error!r})", "give its folder") from error
    if not names:
        raise ConfigError(path, "has scores of other weights than the exported ones", "evaluate this checkpoint")
    rows = [("this model", *row[1:]) if row[0] == names[0] else row for row in rows]
    return str(protocol["split"]), rows, ", ".join(sorted(seen)) if seen else ""


def _row(model: str, kind: str, means: Mapping[str, Any], mark: str = "") -> Row:
    overall = cast("dict[str, Any]", means["overall"])
    dice: dict[str, Any] = (overall.get("class_mean") or {}).get("dice") or {"value": overall["dice"], "ci95": None}
    interval = "-" if dice["ci95"] is None else " to ".join(f"{end:.3f}" for end in dice["ci95"])
    return model, kind, f"{dice['value']:.3f}{mark}", interval, overall["n"], overall["patients"]
