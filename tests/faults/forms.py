"""The two forms of a fault test: a short form for `make test`, and a long form for `make test-faults`."""

from typing import Any

import pytest

LONG_TIMEOUT_S = 1800


def forms(short: int, long: int) -> list[Any]:
    """Return one test parameter per form: how often a fault is caused, or how many hostile inputs are tried."""
    marks = (pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S))
    return [pytest.param(short, id=f"short{short}"), pytest.param(long, id=f"long{long}", marks=marks)]
