"""Print the table of scores at the end of `bcss-train evaluate`."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from schemas.command.console import as_markup
from train.output.interval_text import interval_text
from train.statistics.estimate import FEW_PATIENTS

SEEN_MARK = "†"
"""Follows each score of a model that was trained or chosen on patients that are scored."""

ORACLE_MARK = "‡"
"""Follows each score of a baseline that sees more of the truth than a model does under the same prompt."""

FEW_MARK = "*"
"""Stands behind the number of patients if a class has few of them."""

ORACLE_NOTE = f"{ORACLE_MARK} sees more of the truth than this prompt gives"


def mark_of(result: dict[str, Any], model: str, kind: str) -> str:
    """Return the mark that follows each score of a model under a prompt kind; for most it is empty."""
    if model in result["seen_patients"]:
        return SEEN_MARK
    return ORACLE_MARK if kind in result["oracles"].get(model, []) else ""


def print_scores(result: dict[str, Any]) -> None:
    """Print the mean scores of each model and prompt kind; the class mean is the primary number.

    Args:
        result: `Evaluation.result`, which `metrics.json` holds too.
    """
    # A long name is folded: if it were cut off, two names could look the same. The rest fits into 80 columns.
    heads = ("prompt", "Dice", "95 %", "IoU", "objects", "patients")
    columns = (Column("model", overflow="fold", min_width=18), *(Column(head, no_wrap=True) for head in heads))
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for model, by_kind in result["models"].items():
        for kind, scores in by_kind.items():
            table.add_row(as_markup(model), kind, *_cells(scores["overall"], mark_of(result, model, kind)))
    console = Console(emoji=False)
    console.print(table)
    console.print("Dice and IoU: mean over classes of the mean over the patients that have the class")
    shown = [scores["overall"] for by_kind in result["models"].values() for scores in by_kind.values()]
    if any(means["class_mean"]["dice"]["few_patients"] for means in shown):
        console.print(f"{FEW_MARK} a class has fewer than {FEW_PATIENTS} patients, so its interval is uncertain")
    if any(result["oracles"].values()):
        console.print(ORACLE_NOTE)
    for model, patients in result["seen_patients"].items():
        console.print(f"{SEEN_MARK} {as_markup(model)} was {patients['said']}")


def _cells(means: dict[str, Any], mark: str) -> tuple[str, ...]:
    primary, iou = means["class_mean"]["dice"], means["class_mean"]["iou"]["value"]
    interval = "-" if primary["ci95"] is None else interval_text(primary["ci95"], ".3f")
    few = FEW_MARK if primary["few_patients"] else ""
    return f"{primary['value']:.3f}{mark}", interval, f"{iou:.3f}{mark}", str(means["n"]), f"{means['patients']}{few}"
