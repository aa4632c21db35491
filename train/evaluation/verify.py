"""Verify an evaluation: compare the files that it scored, score them again, and compare every number."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.errors import ConfigError
from schemas.store.store import open_store
from train.backbone.nano_start import init_file
from train.choices import DeviceChoice
from train.evaluation.compare import SCORES_FILE, compare_evaluations, read_numbers
from train.evaluation.provenance import FORMAT_VERSION
from train.evaluation.run import run_evaluation
from train.evaluation.settings import EvaluationSettings
from train.score.evaluate import store_digest

_DIGITS = 12
"""Digits of a SHA-256 that a line shows."""


_OTHER_FORMAT = (
    "another version wrote the report: report.html, overlays.png and the differences between models are not compared, "
    "all scores are"
)


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        differences: One line for each difference; empty if every number is the same.
        notes: One line for each fact that differs from the evaluation, but may leave the numbers as they are.
        compared: Number of values that were compared; 0 if other files than those of the evaluation are there.
    """

    differences: list[str]
    notes: list[str]
    compared: int


def verify_report(
    folder: Path,
    *,
    device: DeviceChoice | None = None,
    tolerance: float = 0.0,
    workers: int = 1,
    on_tile: Callable[[int, int], None] | None = None,
) -> Verification:
    """Verify the files that `bcss-train evaluate` wrote.

    If the store or a checkpoint has changed, nothing is scored, because other files give other numbers.

    Args:
        folder: The `--out` of the evaluation. Nothing in it is changed.
        device: Device to score on; None takes the one that the evaluation was asked to use.
        tolerance: Largest difference of two numbers that count as equal.
        workers: Number of threads that read tiles ahead.
        on_tile: Function called with the number of finished tiles and the number of all tiles.

    Raises:
        ConfigError: A file of the evaluation is absent or damaged, or does not record the settings.
        BcssError: The store or a checkpoint cannot be read.
    """
    numbers = read_numbers(folder)
    settings = _settings(folder, numbers)
    other = list(_other_files(settings, numbers.get("protocol", {})))
    if other:
        return Verification(other, [], 0)
    settings = settings.model_copy(update={"save_masks": False, "device": device or settings.device})
    made_by = numbers.get("made_by", {})
    with tempfile.TemporaryDirectory() as again:
        repeated = run_evaluation(
            settings, Path(again), command=made_by.get("command", ""), workers=workers, on_tile=on_tile
        )
        same_format = made_by.get("form") == FORMAT_VERSION
        compared = compare_evaluations(folder, Path(again), tolerance, same_format=same_format)
    notes = list(_changes(made_by, repeated.result["made_by"]))
    if not same_format:
        notes.append(_OTHER_FORMAT)
    return Verification(compared.differences, notes, compared.compared)


def _settings(folder: Path, numbers: dict[str, Any]) -> EvaluationSettings:
    path = folder / SCORES_FILE
    if "settings" not in numbers:
        raise ConfigError(path, "does not record the settings, since an older version wrote it", "evaluate again")
    try:
        return EvaluationSettings.model_validate(numbers["settings"])
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else {}
        what = f"{'.'.join(map(str, first.get('loc', ())))}: {first.get('msg', error)}"
        raise ConfigError(path, f"has damaged settings ({what:.200})", "evaluate again") from error


def _other_files(settings: EvaluationSettings, protocol: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each file that differs from the one that the evaluation scored."""
    recorded, found = str(protocol.get("store_sha256", "")), store_digest(open_store(settings.store))
    if recorded != found:
        yield f"store {settings.store}: SHA-256 {recorded[:_DIGITS]} in the report, now {found[:_DIGITS]}"
    for name, file in protocol.get("weights", {}).items():
        path = init_file(Path(file["path"]))
        if not path.is_file():
            yield f"weights of {name}: {file['path']} does not exist"
            continue
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != file["sha256"]:
            place = f"weights of {name}: {file['path']}"
            yield f"{place}: SHA-256 {file['sha256'][:_DIGITS]} in the report, now {digest[:_DIGITS]}"


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each change of code, packages or device."""
    if before.get("code_sha256") != now["code_sha256"]:
        yield "the code differs from the code that made the report"
    versions = before.get("versions", {})
    for name, version in now["versions"].items():
        if versions.get(name) != version:
            yield f"{name} {versions.get(name)} in the report, now {version}"
    for key in ("device", "threads"):
        if before.get(key) != now[key]:
            yield f"{key} {before.get(key)} in the report, now {now[key]}"
