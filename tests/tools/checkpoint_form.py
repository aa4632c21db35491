"""Describe a checkpoint as JSON, without the millions of its numbers, and make one of that form with others.

A tensor is `tensor float32 256 256`, one without dimensions `tensor float32 = 2.0`; of the states of random generators
types alone are there; every other value is itself. What JSON does not have is marked: `$tuple`, `$numbered` for a
dictionary with numbers as keys, `$ordered` for an OrderedDict. The names and shapes of a model's weights, which most
checkpoints have alike, stand once under `parts`, and `$part` where they belong.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

Form = dict[str, Any]

WEIGHT_SCALE = 0.02
"""Scale of random weights, at which the values of every layer stay finite."""

_TENSOR = "tensor "


def describe_checkpoints(contents: dict[str, dict[str, Any]]) -> Form:
    """Describe what several checkpoints hold, by name."""
    forms = {
        name: {key: _describe_states(value) if key == "rng" else describe(value) for key, value in content.items()}
        for name, content in contents.items()
    }
    weights = next(iter(forms.values()))["model"]
    weights = weights.get("$ordered", weights)
    return {"parts": {"weights": weights}, "checkpoints": _without(forms, weights)}


def describe(value: object) -> Any:
    """Describe one value."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return _TENSOR + (" ".join([dtype, *map(str, value.shape)]) if value.ndim else f"{dtype} = {value.item()}")
    if isinstance(value, tuple):
        return {"$tuple": [describe(part) for part in value]}
    if isinstance(value, list):
        return [describe(part) for part in value]
    if isinstance(value, dict):
        form = {str(key): describe(part) for key, part in value.items()}
        if value and all(isinstance(key, int) for key in value):
            return {"$numbered": form}
        assert all(isinstance(key, str) and not key.startswith("$") for key in value), list(value)
        return {"$ordered": form} if isinstance(value, OrderedDict) else form
    assert isinstance(value, str | int | float | None), type(value)
    assert not str(value).startswith(_TENSOR), value
    return value


def make_checkpoint(forms: Form, name: str, seed: int) -> dict[str, Any]:
    """Make what a described checkpoint held, with seeded random weights and an optimizer that has seen no gradient.

    Args:
        forms: The result of `describe_checkpoints`.
        name: Name of the checkpoint.
        seed: Seed of the weights and of the generators' states.
    """
    form, states = dict(forms["checkpoints"][name]), _generator_states(seed)
    assert form.pop("rng") == _describe_states(states)
    maker = _Maker(forms["parts"], seed)
    return {key: maker.make(part, zeros=key == "optimizer") for key, part in form.items()} | {"rng": states}


class _Maker:
    def __init__(self, parts: Form, seed: int) -> None:
        self._parts = parts
        self._generator = torch.Generator().manual_seed(seed)

    def make(self, form: object, *, zeros: bool) -> Any:
        """Make a value of a form, with zeros or random numbers in its tensors."""
        if isinstance(form, str) and form.startswith(_TENSOR):
            return self._tensor(form.removeprefix(_TENSOR), zeros=zeros)
        if isinstance(form, list):
            return [self.make(part, zeros=zeros) for part in cast("list[object]", form)]
        if not isinstance(form, dict):
            return form
        match list(cast("Form", form).items()):
            case [("$part", name)]:
                return self.make(self._parts[name], zeros=zeros)
            case [("$tuple", parts)]:
                return tuple(self.make(part, zeros=zeros) for part in parts)
            case [("$numbered", parts)]:
                return {int(key): self.make(part, zeros=zeros) for key, part in parts.items()}
            case [("$ordered", parts)]:
                return OrderedDict(self.make(parts, zeros=zeros))
            case parts:
                return {key: self.make(part, zeros=zeros) for key, part in parts}

    def _tensor(self, form: str, *, zeros: bool) -> Tensor:
        dtype_name, *rest = form.split()
        dtype = getattr(torch, dtype_name)
        if rest[:1] == ["="]:
            return torch.tensor(float(rest[1]), dtype=dtype)
        shape = [int(side) for side in rest]
        if zeros or not dtype.is_floating_point:
            return torch.zeros(shape, dtype=dtype)
        return torch.randn(shape, generator=self._generator, dtype=dtype) * WEIGHT_SCALE


def _describe_states(value: object) -> Any:
    """Describe the states of random generators: of plain values the type, and of long lists the length."""
    if isinstance(value, dict):
        return {key: _describe_states(part) for key, part in value.items()}
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > 100 else [_describe_states(part) for part in value]
    return describe(value) if isinstance(value, Tensor) else type(value).__name__


def _without(form: Any, part: object) -> Any:
    """A form with `$part` in place of the weights' names and shapes."""
    if form == part:
        return {"$part": "weights"}
    if isinstance(form, dict):
        return {key: _without(value, part) for key, value in cast("Form", form).items()}
    return form


def _generator_states(seed: int) -> dict[str, Any]:
    """States as a checkpoint holds them, of generators with this seed."""
    version, words, gauss = random.Random(seed).getstate()
    name, keys, place, has_gauss, cached = np.random.RandomState(seed).get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), int(place), int(has_gauss), float(cached)],
        "torch": torch.Generator().manual_seed(seed).get_state(),
        "cuda": [],
    }
