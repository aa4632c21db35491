"""Record the patients that a model was trained or validated on, so that an evaluation can tell which are unseen.

Checkpoints hold digests instead of names, because the names of patients may be private.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.errors import CheckpointError, ConfigError

DIGEST_LENGTH = 16
"""Hexadecimal digits of a patient's SHA-256 in a checkpoint."""

_DIGESTS = TypeAdapter(list[str])


@dataclass(frozen=True)
class SeenPatients:
    """Digests of the patients that weights have seen, including those that the initial weights had seen.

    Attributes:
        trained: Patients whose tiles changed the weights.
        validated: Patients whose scores chose `best.pt` or ended the run.
    """

    trained: frozenset[str] = frozenset()
    validated: frozenset[str] = frozenset()

    @classmethod
    def from_names(cls, trained: Collection[str], validated: Collection[str]) -> SeenPatients:
        """Make the digests of patients' names."""
        return cls(frozenset(map(digest_of, trained)), frozenset(map(digest_of, validated)))

    def content(self) -> dict[str, list[str]]:
        """Return the digests as plain values for a checkpoint."""
        return {"trained": sorted(self.trained), "validated": sorted(self.validated)}

    def joined(self, other: SeenPatients | None) -> SeenPatients:
        """Return the patients of both records."""
        if other is None:
            return self
        return SeenPatients(self.trained | other.trained, self.validated | other.validated)

    def among(self, names: Collection[str]) -> SeenAmong:
        """Find which of the scored patients the weights have seen."""
        digests = {name: digest_of(name) for name in sorted(names)}
        return SeenAmong(
            tuple(name for name, digest in digests.items() if digest in self.trained),
            tuple(name for name, digest in digests.items() if digest in self.validated - self.trained),
            len(digests),
        )


@dataclass(frozen=True)
class SeenAmong:
    """Which of the scored patients a model has seen.

    Attributes:
        trained: Names of the scored patients that the model was trained on.
        validated: Names of the scored patients that it was only validated on.
        scored: Number of all scored patients.
    """

    trained: tuple[str, ...]
    validated: tuple[str, ...]
    scored: int

    def __bool__(self) -> bool:
        return bool(self.trained or self.validated)

    def __str__(self) -> str:
        parts = [
            f"{how} {len(names)}"
            for how, names in (("trained on", self.trained), ("chosen on", self.validated))
            if names
        ]
        return f"{' and '.join(parts)} of the {self.scored} patients that are scored"


def seen_error(where: object, among: SeenAmong, remedy: str) -> ConfigError:
    """Return the error that weights have seen patients of the test split; it names up to three of them.

    Args:
        where: The checkpoint or the flag that names the weights.
        among: The scored patients that they have seen.
        remedy: What the reader can do about it.
    """
    shown = ", ".join((*among.trained, *among.validated)[:3])
    return ConfigError(where, f"was {among} ({shown})", remedy)


def digest_of(patient: str) -> str:
    """Return the first digits of the SHA-256 of a patient's name."""
    return hashlib.sha256(patient.encode()).hexdigest()[:DIGEST_LENGTH]


def seen_patients(content: Mapping[str, Any], path: Path) -> SeenPatients | None:
    """Read the patients from a checkpoint; None if it is official or of an older version, and records none.

    Args:
        content: Content of the checkpoint.
        path: Path of the checkpoint, for the error.

    Raises:
        CheckpointError: The record is damaged, so it is unknown which patients the weights have seen.
    """
    recorded = content.get("patients")
    if recorded is None:
        return None
    try:
        parts = [_DIGESTS.validate_python(recorded[key]) for key in ("trained", "validated")]
    except (TypeError, KeyError, ValidationError) as error:
        raise CheckpointError(path, "has a damaged record of its patients", "save or download it again") from error
    return SeenPatients(*map(frozenset, parts))
