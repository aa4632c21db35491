"""The start that comes with this project: `nano`, trained on synthetic tissue by `python -m benchmarks.nano_start`.

It is not part of Meta's SAM 2, and it has never seen real tissue. `nano_start.md` beside it says how it was made.
"""

from __future__ import annotations

from pathlib import Path

NANO = "nano"
"""What `--init` takes for the start of this project."""

NANO_IMAGE_SIZE = 128
"""Side of the input in pixels at which it was trained. At 1024 px, Dice with a box is 0.61 instead of 0.91."""

NANO_START = Path(__file__).with_name("nano_start.pt")


def init_file(init: Path) -> Path:
    """Return the file of `--init`. A file named `nano` is given as `./nano` as text, or by its absolute path."""
    return NANO_START if is_nano_start(init) else init


def is_nano_start(init: Path | None) -> bool:
    """Return whether `--init` names the start of this project."""
    return init is not None and not init.is_absolute() and str(init) == NANO
