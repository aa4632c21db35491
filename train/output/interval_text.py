"""Format intervals for people to read."""

from __future__ import annotations

from typing import Any


def interval_text(ends: tuple[float, float] | None, form: str) -> str:
    """Format the ends of an interval in a number format such as `.3f`; return an empty text without an interval."""
    return f"{ends[0]:{form}} to {ends[1]:{form}}" if ends else ""


def class_mean_interval(mean: dict[str, Any], key: str, form: str) -> str:
    """Format the interval of a class mean, and add a note if there are few patients; without an interval, say why.

    Args:
        mean: A class mean of `metrics.json`.
        key: The key of the interval within the class mean.
        form: A number format such as `.3f`.
    """
    if mean[key] is None:
        return "one patient" if mean["patients"] == 1 else "a class with one patient"
    return interval_text(mean[key], form) + (", few patients" if mean["few_patients"] else "")
