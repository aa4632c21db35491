"""Print the table of scores at the end of `bcss-train evaluate`."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from schemas.command.console import as_markup
from train.model.names import ORACLE_MARK, ORACLE_NOTE, SEEN_MARK
from train.output.interval_text import interval_text
from train.statistics.estimate import FEW_PATIENTS

FEW_MARK = "*"
"""Follows the number of patients if a class has few of them."""


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
    console = Console(emoji=False)
    clicks: list[str] = []
    table = Table()
    for clicks in _choices_of_clicks(result):
        table = _table(result, clicks)
        # Measured for a wide terminal, because a measurement never exceeds the width that is there.
        if console.measure(table, options=console.options.update(width=1000)).minimum <= console.width:
            break
    console.print(table)
    scored = "Dice" if clicks else "Dice and IoU"
    console.print(f"{scored}: mean over classes of the mean over the patients that have the class")
    if clicks:
        console.print("+N: the same mean after N simulated clicks")
    shown = [scores["overall"] for by_kind in result["models"].values() for scores in by_kind.values()]
    if any(means["class_mean"]["dice"]["few_patients"] for means in shown):
        console.print(f"{FEW_MARK} a class has fewer than {FEW_PATIENTS} patients, so its interval is uncertain")
    if any(result["oracles"].values()):
        console.print(ORACLE_NOTE)
    for model, patients in result["seen_patients"].items():
        console.print(f"{SEEN_MARK} {as_markup(model)} was {patients['said']}")


def _table(result: dict[str, Any], clicks: list[str]) -> Table:
    """Return the table with the class mean of Dice after each of these numbers of simulated clicks."""
    # Where clicks were simulated, their columns take the place of IoU.
    measures = tuple(f"+{count}" for count in clicks) or ("IoU",)
    heads = ("prompt", "Dice", "95 %", *measures, "objects", "patients")
    # A long name is folded: if it were cut off, two names could look the same. The rest fits into 80 columns.
    columns = (Column("model", overflow="fold", min_width=18), *(Column(head, no_wrap=True) for head in heads))
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for model, by_kind in result["models"].items():
        for kind, scores in by_kind.items():
            table.add_row(as_markup(model), kind, *_cells(scores["overall"], mark_of(result, model, kind), clicks))
    return table


def _choices_of_clicks(result: dict[str, Any]) -> list[list[str]]:
    """Return numbers of clicks to show: all; first, middle and last; first and last, which fit into 80 columns."""
    every = [
        scores["overall"].get("class_mean_after_clicks", {})
        for kinds in result["models"].values()
        for scores in kinds.values()
    ]
    counts = list(map(str, sorted({int(count) for after in every for count in after} - {0})))
    if not counts:
        return [[]]
    first, middle, last = counts[0], counts[(len(counts) - 1) // 2], counts[-1]
    return [counts, list(dict.fromkeys((first, middle, last))), list(dict.fromkeys((first, last)))]


def _cells(means: dict[str, Any], mark: str, clicks: list[str]) -> tuple[str, ...]:
    primary, iou = means["class_mean"]["dice"], means["class_mean"]["iou"]["value"]
    interval = "-" if primary["ci95"] is None else interval_text(primary["ci95"], ".3f")
    few = FEW_MARK if primary["few_patients"] else ""
    after = means.get("class_mean_after_clicks", {})
    clicked = [f"{after[count]['value']:.3f}{mark}" if count in after else "-" for count in clicks]
    scores = (f"{primary['value']:.3f}{mark}", interval, *(clicked or [f"{iou:.3f}{mark}"]))
    return (*scores, str(means["n"]), f"{means['patients']}{few}")
