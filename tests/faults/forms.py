"""The two forms of a test of faults: a short one for `make test`, and a long one for `make test-faults`."""

from typing import Any

import pytest

LONG_TIMEOUT_S = 1800


def forms(short: int, long: int) -> list[Any]:
    """How often a fault is made, or how many hostile inputs are tried: one parameter a form."""
    marks = (pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S))
    return [pytest.param(short, id=f"short{short}"), pytest.param(long, id=f"long{long}", marks=marks)]
