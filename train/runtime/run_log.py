"""Write the log of a run: `metrics.jsonl` and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from schemas.errors import TrainingError
from schemas.overlay import side_by_side

METRICS_FILE = "metrics.jsonl"
_NOT_PLOTTED = ("step", "epoch", "tiles", "by_class")


@dataclass(frozen=True)
class StepRecord:
    """The record of one training step: one line of `metrics.jsonl`.

    Attributes:
        step: Number of the step, from 1.
        epoch: Number of the epoch, from 1.
        loss: Loss, the weighted sum of the terms.
        mask: Focal term, without its weight, like all terms.
        dice: Dice term.
        iou: Term of the IoU head.
        presence: Term of the object score.
        lr: Learning rate of prompt encoder and mask decoder.
        vision_lr: Learning rate of the image encoder; 0 if it is frozen.
        grad_norm: Norm of the gradient before clipping.
        images: Number of images in the step.
        objects: Number of objects in the step.
        dropped: Number of objects that a transform dropped.
        skipped: Number of random maps that were not applied, because they would have dropped an object.
        data_wait_s: Seconds that the step waited for its batches.
        step_s: Seconds of the whole step, including the wait.
        tiles: Indices of the step's tiles, over all processes.
        by_class: Number of objects by class code, over all processes; empty in runs of older versions.
    """

    step: int
    epoch: int
    loss: float
    mask: float
    dice: float
    iou: float
    presence: float
    lr: float
    vision_lr: float
    grad_norm: float
    images: int
    objects: int
    dropped: int
    skipped: int
    data_wait_s: float
    step_s: float
    tiles: list[int]
    by_class: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class EpochSums:
    """Sums over the steps of the epoch in which a run is.

    Attributes:
        epoch: Number of the epoch, from 1; 0 before the first step.
        steps: Number of steps.
        loss: Sum of the losses.
        seconds: Seconds of the steps.
    """

    epoch: int = 0
    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the steps; None without a step."""
        return self.loss / self.steps if self.steps else None

    def with_step(self, epoch: int, loss: float, step_s: float) -> EpochSums:
        """Return the sums with one more step; the first step of another epoch begins at 0."""
        so_far = self if epoch == self.epoch else EpochSums(epoch)
        return EpochSums(epoch, so_far.steps + 1, so_far.loss + loss, so_far.seconds + step_s)


class RunLog:
    """Writer of `metrics.jsonl` and TensorBoard events in a run's folder.

    Args:
        out: Folder of the run; None for a process that writes nothing.
        kept_steps: Number of steps in the checkpoint that a resumed run continues from. Lines of later steps are
            removed, so that the file equals that of an uninterrupted run. None starts an empty file.

    Attributes:
        sums: Sums over the steps of the present epoch, with those before a run was resumed.
    """

    def __init__(self, out: Path | None, kept_steps: int | None = None) -> None:
        self.sums = EpochSums()
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        if out is None:
            return
        self._path = out / METRICS_FILE
        with self._may_be_full():
            kept: list[str] = []
            if kept_steps is not None and self._path.exists():
                for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                    entry = _entry_of(line)
                    if entry is None or entry["step"] > kept_steps:
                        continue
                    kept.append(line)
                    if "event" not in entry:
                        self.sums = self.sums.with_step(entry["epoch"], entry["loss"], entry["step_s"])
            self._path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            self._file = self._path.open("a", encoding="utf-8")
            self._board = SummaryWriter(out / "tensorboard", purge_step=None if kept_steps is None else kept_steps + 1)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After a failure, only the first error is reported; a second error from the disk would add nothing.
        with suppress(OSError) if error is not None else self._may_be_full():
            if self._file is not None:
                self._file.close()
            if self._board is not None:
                self._board.close()

    def step(self, record: StepRecord) -> None:
        """Write the record of one step."""
        self.sums = self.sums.with_step(record.epoch, record.loss, record.step_s)
        values = asdict(record)
        with self._may_be_full():
            self._write(values)
            for name, value in values.items():
                if name not in _NOT_PLOTTED:
                    self._scalar(f"train/{name}", value, record.step)

    def epoch(
        self,
        step: int,
        epoch: int,
        val: dict[str, Any] | None,
        score: float | None,
        by_weights: Mapping[str, float] | None = None,
    ) -> None:
        """Write the validation scores of the start, which counts as epoch 0, or those at the end of an epoch.

        Args:
            step: Number of steps done.
            epoch: Number of epochs done.
            val: Scores by prompt kind; None without a validation split.
            score: Score that chooses `best.pt`; None without a validation split.
            by_weights: The same score of the step's weights and of their moving average, if the run keeps one.
        """
        with self._may_be_full():
            entry: dict[str, object] = {"event": "epoch", "step": step, "epoch": epoch, "val": val, "val_score": score}
            if by_weights and len(by_weights) > 1:
                entry["val_score_by_weights"] = dict(by_weights)
            self._write(entry)
            if score is not None:
                self._scalar("val/score", score, step)
            for kind, scores in (val or {}).items():
                for name, means in {"overall": scores["overall"], **scores["classes"]}.items():
                    for measure in ("dice", "iou"):
                        self._scalar(f"val/{measure}/{kind}/{name}", means[measure], step)
            if self._board is not None:
                self._board.flush()

    def panels(self, step: int, panels: list[NDArray[np.uint8]]) -> None:
        """Show overlays, each uint8 (H, W, 3), in TensorBoard."""
        if self._board is not None and panels:
            with self._may_be_full():
                self._board.add_image("val/overlays", side_by_side(panels, 4), step, dataformats="HWC")

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._board is not None:
            self._board.add_scalar(name, value, step)

    def _write(self, values: dict[str, object]) -> None:
        if self._file is not None:
            # Flush each line, so that a killed run leaves only complete lines.
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    @contextmanager
    def _may_be_full(self) -> Generator[None]:
        """Report in one line that the disk refuses a write, for example because it is full.

        Raises:
            TrainingError: A file cannot be written.
        """
        try:
            yield
        except OSError as error:
            where = self._path.parent
            raise TrainingError(
                where, f"cannot be written ({error.strerror or error})", "free space, and give --resume"
            ) from error


def read_steps(out: Path) -> list[StepRecord]:
    """Read the steps of a run from its `metrics.jsonl`."""
    lines = (out / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [StepRecord(**entry) for entry in entries if "event" not in entry]


def _entry_of(line: str) -> dict[str, Any] | None:
    """Return the content of a line; None if its step or a number of the step is not there.

    A kill or a disk error leaves such a line. It is removed from the log.
    """
    try:
        entry = json.loads(line)
        needed = ("step",) if "event" in entry else ("step", "epoch", "loss", "step_s")
        return entry if all(isinstance(entry[key], int | float) for key in needed) else None
    except (KeyError, TypeError, ValueError):
        return None
