"""Count the outcomes of each fault, and print a table of them at the end of a test run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.store.store import Store
from tests.faults.commands import FIT_FLAGS
from tests.faults.guard import Guard

Tally = Callable[..., None]


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """Keep the counts of a test for the table.

    The counts are stored as properties of the test, because pytest-xdist sends these to the process that prints.
    """

    def keep(fault: str, guard: Guard | None = None, **counts: int) -> None:
        if guard is not None:
            counts = {"tried": guard.tried, "refused": guard.refused, "used": guard.accepted}
        record_property("fault", {"fault": fault, **counts})

    return keep


@pytest.fixture(scope="session")
def straight(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run that no fault disturbed."""
    from train.config import read_config
    from train.fit.trainer import fit

    out = tmp_path_factory.mktemp("straight")
    fit(store, read_config(None, FIT_FLAGS), out)
    return out


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "fault"
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    for row in rows:
        counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in row.items() if name != "fault")
        terminalreporter.write_line(f"{row['fault']:<58} {counts}")
