"""What a checkpoint of `bcss-train fit` holds: every key, its type, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from schemas.errors import CheckpointError
from train.backbone.catalog import ModelSize
from train.choices import MAX_SEED
from train.model.checkpoint import Weights, load_checkpoint, save_checkpoint, trained_with


class TrainState(BaseModel):
    """The content of `checkpoint.pt`; `best.pt` lacks the optimizer and the average.

    The keys of SAM 2's published trainer are `model`, `optimizer`, `epoch`, `loss`, `steps`, `time_elapsed`,
    `best_meter_values` and `scaler`. They keep their names and their places, so that tools for its files read ours.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", arbitrary_types_allowed=True, protected_namespaces=()
    )

    # The weights under Meta's names, adapters merged in: read by `build_sam2`, by every predictor and by `--init`.
    model: dict[str, Tensor]
    # The adapters as peft names them, and the layers under them: read by `--resume` of a run with `--lora`.
    adapter: dict[str, Tensor] | None = None
    base_layers: dict[str, Tensor] | None = None
    # State of AdamW, read by `--resume`.
    optimizer: dict[str, Any] | None = None
    # A published key that nobody here reads: bfloat16 needs no scaling of gradients.
    scaler: None = None
    # Read by people: the place in the schedule, which `--resume` derives from `steps`.
    scheduler: dict[str, int]
    # Whole epochs done: a published key, read by people.
    epoch: int
    # Steps done, read by `--resume`.
    steps: int = Field(ge=0)
    # Read by people: the place in the data, which `--resume` derives from `steps`.
    sampler: dict[str, int]
    # Compared by `--resume` with the store and the batch that it is given.
    origin: dict[str, Any]
    # SHA-256 of the file of `--init`: read by `evaluate`, which scores that file beside the checkpoint.
    init_sha256: str | None = None
    # Loss of the last step, read by `--resume` for summary.json.
    loss: float
    # Seconds spent in steps, read by `--resume` for summary.json.
    time_elapsed: float
    # Best validation score by its measure, read by `--resume`; `best.pt` is replaced only by a better one.
    best_meter_values: dict[str, float]
    # Epochs without a better score, read by `--resume` for `--patience`.
    epochs_since_best: int
    # Steps that were done at the last validation: `--resume` validates first where an epoch's end was not scored.
    scored_steps: int
    # The last validation, read by `--resume` for summary.json.
    val: dict[str, Any] | None
    # States of the random generators, read by `--resume`; see `train.runtime.random_state`.
    rng: dict[str, Any]
    # Threads of the process that wrote it: `--resume` warns where sums may differ in their last bits.
    threads: int
    # The network and its input, read by every predictor.
    model_size: ModelSize
    image_size: int
    # Every setting of the run: compared by `--resume`; `evaluate` finds the start by `init` and `seed`.
    config: dict[str, Any]
    # The moving average of the weights, in the form of `model`, `adapter` and `base_layers`: read by `--resume`.
    ema: dict[str, dict[str, Tensor]] | None = None

    @property
    def weights(self) -> dict[str, Weights]:
        """The weights with the parts that adapters need, by key."""
        parts = {"model": self.model, "adapter": self.adapter, "base_layers": self.base_layers}
        return {key: part for key, part in parts.items() if part is not None}

    def content(self) -> dict[str, Any]:
        """Return tensors and plain Python values alone, by key; a part that a run does not have is left out."""
        optional = ("adapter", "base_layers", "optimizer", "ema")
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if name not in optional or value is not None}

    def without_training(self) -> TrainState:
        """Leave out what only `--resume` of the last step needs: optimizer and average."""
        return self.model_copy(update={"optimizer": None, "ema": None})

    def save(self, path: Path, keep_as: Path | None = None) -> None:
        """Write the checkpoint; see `save_checkpoint`.

        Raises:
            CheckpointError: The disk is full or cannot be written.
        """
        save_checkpoint(path, self.content(), keep_as)

    @classmethod
    def load(cls, path: Path) -> TrainState:
        """Read a checkpoint that `fit` wrote.

        Raises:
            CheckpointError: It cannot be read, is not of `fit`, or holds a value of another kind.
        """
        content = load_checkpoint(path)
        if not isinstance(content.get("config"), dict) or not isinstance(content.get("origin"), dict):
            raise CheckpointError(path, "was not written by bcss-train fit", "use it with --init")
        try:
            return cls.model_validate(content)
        except (ValidationError, RecursionError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            raise CheckpointError(path, f"cannot be resumed ({what:.200})", "start a new run with --init") from error


@dataclass(frozen=True)
class RunStart:
    """The weights that a run began with.

    Attributes:
        size: Name of the network.
        image_size: Side of its input in pixels.
        init: Path of the file of `--init`, None for random weights.
        init_sha256: Digest of that file, None where the checkpoint does not say.
        seed: Seed of random weights; 0 with `--init`, where it does not matter.
    """

    size: ModelSize
    image_size: int
    init: str | None
    init_sha256: str | None
    seed: int


def run_start(content: dict[str, Any], path: Path) -> RunStart | None:
    """Return what a checkpoint of ours was trained from; None for an official one.

    Raises:
        CheckpointError: It is ours and does not say.
    """
    own, config = trained_with(content, path), content.get("config")
    if own is None or not isinstance(config, dict):
        return None
    settings = cast("dict[str, object]", config)
    init, seed, digest = settings.get("init"), settings.get("seed", 0), content.get("init_sha256")
    if not isinstance(init, str | None) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise CheckpointError(path, "says neither --init nor --seed of its run", "give --no-zero-shot")
    if not isinstance(digest, str | None):
        raise CheckpointError(path, f"says init_sha256 {digest!r:.40}", "save or download it again")
    return RunStart(*own, init, digest, 0 if init else seed)
