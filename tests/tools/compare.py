"""Compare what two versions wrote: folders and stores byte by byte, numbers and weights bit by bit."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

Values = dict[str, Any]

TIMES = frozenset({"time_elapsed", "data_wait_s", "step_s"})
"""Seconds, which differ between any two runs."""

UNSEEDED = frozenset({"python", "numpy"})
"""States of the generators of Python and NumPy in a checkpoint: nothing seeds them, and nothing draws from them."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        name: What was compared.
        count: Number of files, tensors and plain values.
        differences: One line for each that differs.
        notes: One line for each value that only the checkout writes, such as a new setting.
    """

    name: str
    count: int
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.differences:
            return f"{self.name}: {len(self.differences)} of {self.count} differ"
        return f"{self.name}: {self.count} the same"


def compare_folders(name: str, then: Path, now: Path, left_out: Collection[str] = ()) -> Comparison:
    """Compare every file by its bytes.

    Args:
        name: What is compared, for messages.
        then: The folder that the revision wrote.
        now: The folder that the checkout wrote.
        left_out: Files by their path in the folder.
    """
    found = _Found(name)
    ours, theirs = ({path: folder / path for path in _files(folder) - set(left_out)} for folder in (now, then))
    for path in sorted(ours.keys() | theirs.keys()):
        if path not in ours or path not in theirs:
            found.missing(path, then=path in theirs)
        else:
            mine, other = ours[path].read_bytes(), theirs[path].read_bytes()
            found.check(path, mine == other, lambda a=other, b=mine: _first_byte(a, b))
    return found.comparison()


def compare_stores(name: str, then: Path, now: Path) -> Comparison:
    """Compare two stores: every file by its bytes, and the manifest as JSON, entry by entry.

    A new version of the package, and an entry that only the checkout writes, is noted.
    """
    found = _Found(name)
    found.add(compare_folders(name, then, now, left_out=["zarr.json"]))
    manifests = [json.loads((folder / "zarr.json").read_text()) for folder in (then, now)]
    roots = [manifest.get("attributes", {}).get("bcss", {}) for manifest in manifests]
    versions = [root.get("tool_version") for root in roots]
    left_out = {"manifest_sha256"}
    if versions[0] != versions[1]:
        found.notes.append(f"{name}: tool_version was {versions[0]} and is {versions[1]}")
        left_out.add("tool_version")
    found.values("zarr.json", manifests[0], manifests[1], left_out, may_grow=True)
    if not found.notes:
        # The digest covers all entries, so it differs as soon as one is noted.
        then_digest, now_digest = (root.get("complete", {}).get("manifest_sha256") for root in roots)
        found.values("zarr.json: manifest_sha256", then_digest, now_digest, ())
    return found.comparison()


def compare_names(name: str, then: Path, now: Path, left_out: str) -> Comparison:
    """Compare which files two folders hold, except those in a sub-folder whose file names differ in every run."""
    found = _Found(name)
    ours, theirs = ({p for p in _files(folder) if not p.startswith(f"{left_out}/")} for folder in (now, then))
    found.notes += [f"{name}: {path} is new" for path in sorted(ours - theirs)]
    for path in sorted(theirs):
        found.check(path, path in ours, lambda: "is no longer written")
    return found.comparison()


def compare_json(
    name: str, then: Path, now: Path, left_out: Collection[str] = (), *, may_grow: bool = False
) -> Comparison:
    """Compare two JSON files, or each line of two `.jsonl` files.

    Args:
        name: What is compared, for messages.
        then: The file that the revision wrote.
        now: The file that the checkout wrote.
        left_out: Keys at any depth.
        may_grow: Whether a key that only the checkout writes, such as a new setting, is noted and not a difference.
    """
    found = _Found(name)
    texts = [path.read_text(encoding="utf-8") for path in (then, now)]
    if then.suffix == ".jsonl":
        entries = [[json.loads(line) for line in text.splitlines()] for text in texts]
        # Older revisions did not validate the start, which is epoch 0.
        values = [[entry for entry in side if entry.get("epoch") != 0] for side in entries]
    else:
        values = [json.loads(text) for text in texts]
    found.values("", values[0], values[1], left_out, may_grow=may_grow)
    return found.comparison()


def compare_columns(name: str, then: Path, now: Path, left_out: Collection[str] = ()) -> Comparison:
    """Compare the columns of two CSV files that the revision wrote; further columns of the checkout are noted."""
    found = _Found(name)
    with then.open(newline="", encoding="utf-8") as before, now.open(newline="", encoding="utf-8") as after:
        rows = [list(csv.DictReader(file)) for file in (before, after)]
    kept = [[{key: value for key, value in row.items() if key not in left_out} for row in side] for side in rows]
    found.values("", kept[0], kept[1], (), may_grow=True)
    return found.comparison()


def compare_checkpoints(name: str, then: Path, now: Path, left_out: Collection[str] = ()) -> Comparison:
    """Compare two checkpoints: every tensor by its bits, and every other value except times.

    A plain value that only the checkout writes, such as a new setting, is noted.
    """
    found = _Found(name)
    contents = [torch.load(path, map_location="cpu", weights_only=True, mmap=True) for path in (then, now)]
    found.values("", contents[0], contents[1], {*TIMES, *UNSEEDED, *left_out}, may_grow=True)
    return found.comparison()


@dataclass
class _Found:
    """What a comparison has found so far."""

    name: str
    count: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def comparison(self) -> Comparison:
        return Comparison(self.name, self.count, tuple(self.differences), tuple(self.notes))

    def add(self, other: Comparison) -> None:
        self.count += other.count
        self.differences += other.differences
        self.notes += other.notes

    def check(self, where: str, same: bool, what: Any) -> None:
        """Count one thing; `what` is called for the difference where there is one."""
        self.count += 1
        if not same:
            self.differences.append(f"{self.name}: {where} {what()}")

    def missing(self, where: str, *, then: bool) -> None:
        self.check(where, False, lambda: "is gone" if then else "is new")

    def values(
        self, where: str, then: object, now: object, left_out: Collection[str], *, may_grow: bool = False
    ) -> None:
        """Compare plain values and tensors, and the content of dictionaries and lists."""
        if isinstance(then, dict) and isinstance(now, dict):
            self._dictionaries(where, then, now, left_out, may_grow=may_grow)
        elif isinstance(then, list | tuple) and type(then) is type(now) and len(then) == len(cast("list[Any]", now)):
            for place, (other, mine) in enumerate(zip(then, cast("list[Any]", now), strict=True)):
                self.values(f"{where}[{place}]", other, mine, left_out, may_grow=may_grow)
        elif isinstance(then, Tensor) and isinstance(now, Tensor):
            self.check(where, _same_bits(then, now), lambda: _tensor_difference(then, now))
        else:
            self.check(where, _same_plain(then, now), lambda: f"was {_shown(then)} and is {_shown(now)}")

    def _dictionaries(
        self, where: str, then: Values, now: Values, left_out: Collection[str], *, may_grow: bool
    ) -> None:
        for key in dict.fromkeys([*then, *now]):
            place = f"{where}.{key}" if where else str(key)
            if key in left_out:
                continue
            if key in then and key in now:
                self.values(place, then[key], now[key], left_out, may_grow=may_grow)
            elif key in now and may_grow and not _holds_tensor(now[key]):
                self.notes.append(f"{self.name}: {place} = {_shown(now[key])} is new")
            else:
                self.missing(place, then=key in then)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _first_byte(then: bytes, now: bytes) -> str:
    if len(then) != len(now):
        return f"had {len(then)} bytes and has {len(now)}"
    place = next(i for i, (other, mine) in enumerate(zip(then, now, strict=True)) if other != mine)
    return f"has another byte at {place}"


def _same_plain(then: object, now: object) -> bool:
    if isinstance(then, float) and isinstance(now, float):
        # By their bits, so that NaN equals itself and 0 differs from -0.
        return struct.pack("d", then) == struct.pack("d", now)
    return type(then) is type(now) and then == now


def _same_bits(then: Tensor, now: Tensor) -> bool:
    if then.dtype != now.dtype or then.shape != now.shape:
        return False
    other, mine = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (then, now))
    return torch.equal(other, mine)


def _tensor_difference(then: Tensor, now: Tensor) -> str:
    if then.dtype != now.dtype or then.shape != now.shape:
        return f"was {then.dtype} {tuple(then.shape)} and is {now.dtype} {tuple(now.shape)}"
    apart = (then.double() - now.double()).abs()
    return f"differs in {int((apart != 0).sum())} of {then.numel()} values, by {float(apart.max()):.3g} at most"


def _holds_tensor(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_tensor(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_tensor(part) for part in value)
    return isinstance(value, Tensor)


def _shown(value: object) -> str:
    text = f"a tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
