"""The table of scores that `bcss-train evaluate` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from schemas.command.console import as_markup
from train.output.interval_text import class_mean_interval

SEEN_MARK = "†"
"""Stands behind each score of a model that was trained or chosen on patients that are scored."""

ORACLE_MARK = "‡"
"""Stands behind a baseline that sees more of the truth than a model does under the same prompt."""

ORACLE_NOTE = f"{ORACLE_MARK} sees more of the truth than this prompt tells"


def mark_of(result: dict[str, Any], model: str, kind: str) -> str:
    """Return the mark that stands behind each score of a model under a prompt kind; empty for most."""
    if model in result["seen_patients"]:
        return SEEN_MARK
    return ORACLE_MARK if kind in result["oracles"].get(model, []) else ""


def print_scores(result: dict[str, Any]) -> None:
    """Print the mean scores of each model and prompt kind; the class mean is the primary number.

    Args:
        result: `Evaluation.result`, which `metrics.json` holds too.
    """
    # A long name goes on in the next line: cut short, two names may look alike.
    table = Table(Column("model", overflow="fold"), "prompt", "Dice", "95 %", "IoU", "objects", "patients")
    for model, by_kind in result["models"].items():
        for kind, scores in by_kind.items():
            table.add_row(as_markup(model), kind, *_cells(scores["overall"], mark_of(result, model, kind)))
    console = Console(emoji=False)
    console.print(table)
    console.print("Dice and IoU: mean over classes of the mean over the patients that have the class")
    if any(result["oracles"].values()):
        console.print(ORACLE_NOTE)
    for model, patients in result["seen_patients"].items():
        console.print(f"{SEEN_MARK} {as_markup(model)} was {patients['said']}")


def _cells(means: dict[str, Any], mark: str) -> tuple[str, ...]:
    primary = means["class_mean"]["dice"]
    interval = class_mean_interval(primary, "ci95", ".3f")
    iou = means["class_mean"]["iou"]["value"]
    return f"{primary['value']:.3f}{mark}", interval, f"{iou:.3f}{mark}", str(means["n"]), str(means["patients"])
