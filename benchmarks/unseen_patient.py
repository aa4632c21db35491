"""Compare runs of `real_halves.py` whose scored patients were not trained on with one that had their other halves.

    python -m benchmarks.unseen_patient SEEN UNSEEN [UNSEEN ...]

SEEN is the OUT of a run of both halves; each UNSEEN is the OUT of a run with `--unseen`. Dice of the same objects is
paired, each object once. Intervals hold 95 % of the mean differences of resampled objects. Two patients give no
interval over patients, and objects beside each other are not independent, so the intervals are narrow.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RESAMPLED = 4000

ObjectKey = tuple[str, ...]
"""The columns that name an object in stores with other tiles: `NAMED_BY`."""
NAMED_BY = ("frame_id", "prompt", "class_id", "roi_component", "area_px")


def last_dice(out: Path) -> dict[ObjectKey, float]:
    """Read the Dice of each object of a run by its last weights."""
    with (out / "evaluation" / "objects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = max((row["model"] for row in rows if row["model"].isdigit()), key=int)
    dice = {tuple(row[name] for name in NAMED_BY): float(row["dice"]) for row in rows if row["model"] == last}
    if len(dice) != sum(row["model"] == last for row in rows):
        raise SystemExit(f"{out}: two objects have the same {', '.join(NAMED_BY)}, so they cannot be paired")
    return dice


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of differences, float64 (O,), from a bootstrap over objects."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(differences), (RESAMPLED, len(differences)))
    low, high = np.percentile(differences[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Pair and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seen", type=Path)
    parser.add_argument("unseen", type=Path, nargs="+")
    arguments = parser.parse_args()
    seen = last_dice(arguments.seen)
    unseen = {key: dice for out in arguments.unseen for key, dice in last_dice(out).items()}
    for prompt in sorted({key[1] for key in unseen}):
        for roi in [*sorted({key[0] for key in unseen}), ""]:
            keys = [key for key in unseen if key[1] == prompt and roi in ("", key[0])]
            before, now = (np.array([dice[key] for key in keys]) for dice in (seen, unseen))
            low, high = interval(now - before)
            print(
                f"{prompt:9} {roi or 'all':10} {len(keys):4} objects: seen {before.mean():.3f}, unseen {now.mean():.3f}"
            )
            print(f"{'':21}difference {(now - before).mean():+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
