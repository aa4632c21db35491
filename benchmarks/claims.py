"""Functions that all benchmarks share: measure median times, and print claims as one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A measured value and its goal.

    Attributes:
        claim: What was measured.
        value: The measured value.
        goal: The bound that the value should meet.
        at_most: Whether the goal is an upper bound; otherwise it is a lower bound.
    """

    claim: str
    value: float
    goal: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal


def print_claims(claims: list[Claim]) -> None:
    """Print claims as a JSON list of {claim, value, goal, met}."""
    print(
        json.dumps(
            [{"claim": c.claim, "value": round(c.value, 4), "goal": round(c.goal, 4), "met": c.met} for c in claims]
        )
    )


def medians(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way.

    The ways take turns, so that other load on the machine affects all of them alike; the first turn is not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def hardware() -> str:
    """Describe the machine in words."""
    # Imported here: benchmarks measure the memory of processes that import this file, and torch takes 400 MB.
    import torch

    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores, {cpu}, {gpu}, {versions}"


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a file of ours
            return file.read().splitlines()
    except OSError:
        return []
