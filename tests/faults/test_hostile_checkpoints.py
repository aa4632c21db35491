"""Test checkpoints that are made to run code, to fill the memory, or to break the code that reads them."""

from __future__ import annotations

import copy
import io
import random
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.forms import forms
from tests.faults.guard import Guard, bounded_memory
from tests.faults.mutations import documents, mutated
from train.config import FitConfig
from train.fit.resume import restore_run
from train.fit.state import Run, RunIdentity, start_run
from train.model.checkpoint import load_checkpoint, load_weights, trained_with
from train.model.promptable import PromptableSam


class _Call:
    def __init__(self, function: object, *arguments: object) -> None:
        self.made_of = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made_of


_attacks = st.sampled_from(
    [
        _Call(subprocess.call, ["touch", "evil"]),
        _Call(eval, "open('evil', 'w')"),
        _Call(bytearray, 10**11),
        _Call(torch.Tensor, 10**10),
        _Call(torch.zeros, 10**10),
        _Call(getattr, "text", "upper"),
    ]
)
_weights = st.one_of(
    st.sampled_from([torch.zeros(0), torch.zeros(1).expand(10**6), torch.zeros(3, dtype=torch.complex64)]),
    st.sampled_from([torch.eye(2).to_sparse(), torch.zeros(2, device="meta"), torch.full((2,), float("nan"))]),
    st.just(torch.zeros(3, dtype=torch.bool)),
)


@st.composite
def contents(draw: st.DrawFn, content: dict[str, Any]) -> bytes:
    """Draw a checkpoint with some plain values replaced, and sometimes an unexpected tensor or function call."""
    plain: dict[str, Any] = draw(documents({key: value for key, value in content.items() if key != "model"}))
    weights = dict(content["model"])
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from([weights, plain]))
        key: Any = draw(st.sampled_from(sorted(place, key=str)) | st.sampled_from(["model", "x", 5, None, ("a", 1)]))
        place[key] = draw(_attacks | _weights)
    return encoded({"model": weights} | plain)


def encoded(content: dict[str, Any]) -> bytes:
    """Return the bytes that `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_mutated_pickle(data: bytes, draw: random.Random) -> bytes:
    """Return the archive with a damaged pickle but correct checksums; sometimes it is compressed."""
    buffer = io.BytesIO()
    kind = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(buffer, "w", kind) as damaged:
        for name in whole.namelist():
            entry = whole.read(name)
            is_pickle = name.endswith("data.pkl")
            if is_pickle and not draw.randrange(4):
                name = draw.choice((name.upper(), name.title(), f"{name}\0x", f"/{name}", name.replace("/", "\\")))
            damaged.writestr(name, mutated(entry, draw) if is_pickle else entry)
    return buffer.getvalue()


def untrained() -> Run:
    """A run before its first step."""
    config = FitConfig(model="nano", image_size=128, device="cpu")
    return start_run(config, RunIdentity("0" * 64, 4, 3), torch.device("cpu"))


@pytest.fixture(scope="module")
def run() -> Run:
    return untrained()


def small_content(run: Run) -> dict[str, Any]:
    """Return a checkpoint with almost no weights; it is refused only after everything else in it was read."""
    content = copy.deepcopy(run.state().content())
    content["model"] = dict(list(content["model"].items())[:2])
    content["optimizer"] = {"state": {}, "param_groups": [{"lr": 1.0, "params": [0, 1]}]}
    content["rng"] = {}
    return content


def use(path: Path, model: PromptableSam, run: Run) -> None:
    """Do everything that a program does with a checkpoint: load its settings and weights, and resume from it."""
    found = load_checkpoint(path)
    trained_with(found, path)
    try:
        load_weights(model, found["model"], path)
    finally:
        restore_run(run, path)


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_checkpoints_are_read_or_refused(
    run: Run, tmp_path: Path, inputs: int, monkeypatch: pytest.MonkeyPatch, tally
) -> None:
    monkeypatch.chdir(tmp_path)
    path, guard, content = tmp_path / "checkpoint.pt", Guard(tmp_path), small_content(run)
    valid, model = encoded(content), PromptableSam("nano", 128)

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        guard.attempt(lambda: use(path, model, run))
        assert not (tmp_path / "evil").exists()
        (tmp_path / "checkpoint.damaged").unlink(missing_ok=True)

    with bounded_memory():
        for number in range(inputs // 2):
            draw = random.Random(number)
            attempt(mutated(valid, draw) if number % 2 else with_mutated_pickle(valid, draw))
        settings(max_examples=inputs - inputs // 2)(given(contents(content))(attempt))()
    tally("hostile checkpoints", guard)


@pytest.mark.parametrize("inputs", forms(50, 2_000))
def test_any_bytes_under_a_zip_header_are_refused(tmp_path: Path, inputs: int, tally) -> None:
    path, guard = tmp_path / "checkpoint.pt", Guard(tmp_path)

    def attempt(data: bytes) -> None:
        path.write_bytes(b"PK\x03\x04" + data)
        guard.attempt(lambda: load_checkpoint(path), data)

    with bounded_memory():
        settings(max_examples=inputs)(given(st.binary(max_size=300))(attempt))()
    assert not guard.accepted
    tally("hostile archives of any bytes", guard)
