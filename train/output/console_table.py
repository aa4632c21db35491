"""The table of scores that `bcss-train evaluate` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from schemas.command.console import as_markup


def print_scores(result: dict[str, Any]) -> None:
    """Print the mean scores of each model and prompt kind over all classes.

    Args:
        result: `Evaluation.result`, which `metrics.json` holds too.
    """
    table = Table("model", "prompt", "Dice", "95 %", "IoU", "objects")
    for model, by_kind in result["models"].items():
        for kind, scores in by_kind.items():
            table.add_row(as_markup(model), kind, *_cells(scores["overall"]))
    Console(emoji=False).print(table)


def _cells(means: dict[str, Any]) -> tuple[str, str, str, str]:
    ends = means["ci95"]["dice"]
    interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "one patient"
    return f"{means['dice']:.3f}", interval, f"{means['iou']:.3f}", str(means["n"])
