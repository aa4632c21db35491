"""Define the content of a checkpoint of `bcss-train fit`: each key, its type, and the commands that read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from schemas.errors import CheckpointError
from schemas.prompt_kinds import PromptKind
from train.backbone.catalog import ModelSize
from train.choices import MAX_SEED
from train.model.checkpoint import Weights, load_checkpoint, save_checkpoint, trained_with


class TrainState(BaseModel):
    """The content of `checkpoint.pt`; `best.pt` lacks the optimizer and the average.

    SAM 2's published trainer writes the keys `model`, `optimizer`, `epoch`, `loss`, `steps`, `time_elapsed`,
    `best_meter_values` and `scaler`. They have the same names and places here, so tools for those files
    can read these too.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", arbitrary_types_allowed=True, protected_namespaces=()
    )

    # The weights under Meta's names, with adapters merged in: read by `build_sam2`, all predictors and `--init`.
    model: dict[str, Tensor]
    # The adapters under peft's names, and the layers under them: read by `--resume` of a run with `--lora`.
    adapter: dict[str, Tensor] | None = None
    base_layers: dict[str, Tensor] | None = None
    # The state of AdamW, read by `--resume`.
    optimizer: dict[str, Any] | None = None
    # A key of the published trainer that nothing here reads: bfloat16 needs no scaling of gradients.
    scaler: None = None
    # The place in the schedule, for people to read; `--resume` derives it from `steps`.
    scheduler: dict[str, int]
    # The number of whole epochs done: a key of the published trainer, for people to read.
    epoch: int
    # The number of steps done, read by `--resume`.
    steps: int = Field(ge=0)
    # The place in the data, for people to read; `--resume` derives it from `steps`.
    sampler: dict[str, int]
    # The store's digest and the batch sizes: `--resume` compares them with those that it is given.
    origin: dict[str, Any]
    # The SHA-256 of the file of `--init`: read by `evaluate`, which also scores that file.
    init_sha256: str | None = None
    # Digests of the patients that the run or its initial weights were trained or validated on: read by `evaluate`.
    patients: dict[str, list[str]] | None = None
    # Tile size, resolution, classes and prompt of training: read by `predict`.
    trained_on: dict[str, Any] | None = None
    # The loss of the last step, read by `--resume` for summary.json.
    loss: float
    # Seconds spent in steps, read by `--resume` for summary.json.
    time_elapsed: float
    # The best validation score, by the name of the score: read by `--resume`, which replaces only a worse `best.pt`.
    best_meter_values: dict[str, float]
    # Whether `best.pt` has the weights of its step ("raw") or their "average": read by `--resume` for summary.json.
    best_weights: Literal["raw", "average"] | None = None
    # Whether the decay of the average is smaller in the first steps: read by `--resume`. Older versions had no warm-up.
    ema_warms_up: bool = False
    # The validation score before the first step: read by `--resume` for summary.json and the report.
    start_score: float | None = None
    # The Dice of the start on every validation object: read by `--resume`, which compares later weights on them.
    start_dice: dict[PromptKind, list[float]] | None = None
    # The difference of `best.pt` minus the start: read by `--resume` for summary.json.
    against_start: dict[str, Any] | None = None
    # The number of epochs since the best score, read by `--resume` for `--patience`.
    epochs_since_best: int
    # The number of steps at the last validation, -1 before the first: if an epoch has ended since, `--resume` first
    # validates.
    scored_steps: int
    # The scores of the last validation, read by `--resume` for summary.json.
    val: dict[str, Any] | None
    # The states of the random generators, read by `--resume`; see `train.runtime.random_state`.
    rng: dict[str, Any]
    # The number of threads of the process that wrote this: with another number, `--resume` warns of small differences.
    threads: int
    # The network and the side of its input in pixels, read by all predictors.
    model_size: ModelSize
    image_size: int
    # All settings of the run: `--resume` compares them; `evaluate` finds the initial weights by `init` and `seed`.
    config: dict[str, Any]
    # The moving average of the weights, in the form of `model`, `adapter` and `base_layers`: read by `--resume`, and by
    # all predictors, which use it instead of `model`.
    ema: dict[str, dict[str, Tensor]] | None = None

    @property
    def weights(self) -> dict[str, Weights]:
        """The weights and the parts that adapters need, by key."""
        parts = {"model": self.model, "adapter": self.adapter, "base_layers": self.base_layers}
        return {key: part for key, part in parts.items() if part is not None}

    def content(self) -> dict[str, Any]:
        """Return the tensors and plain Python values to save, by key; parts that the run does not have are left out."""
        optional = ("adapter", "base_layers", "optimizer", "ema", "start_dice")
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if name not in optional or value is not None}

    def without_training(self) -> TrainState:
        """Return a copy without the optimizer, the average and the Dice of the start, which only `--resume` reads."""
        return self.model_copy(update={"optimizer": None, "ema": None, "start_dice": None})

    def save(self, path: Path, keep_as: Path | None = None) -> None:
        """Write the checkpoint with `save_checkpoint`, which explains the arguments.

        Raises:
            CheckpointError: The disk is full or not writable.
        """
        save_checkpoint(path, self.content(), keep_as)

    @classmethod
    def load(cls, path: Path) -> TrainState:
        """Read a checkpoint that `fit` wrote.

        Raises:
            CheckpointError: The file cannot be read, `fit` did not write it, or a value has a wrong type.
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
    """The weights that a run started from.

    Attributes:
        size: Name of the network.
        image_size: Side of the network's input in pixels.
        init: Path of the file of `--init`; None for random weights.
        init_sha256: SHA-256 of that file; None if the checkpoint does not record it.
        seed: Seed of random weights; 0 with `--init`, where it does not matter.
    """

    size: ModelSize
    image_size: int
    init: str | None
    init_sha256: str | None
    seed: int


def run_start(content: dict[str, Any], path: Path) -> RunStart | None:
    """Return the weights that a run started from, as its checkpoint records; None for an official checkpoint.

    Args:
        content: Content of the checkpoint.
        path: Path of the checkpoint, for the error.

    Raises:
        CheckpointError: `bcss-train fit` wrote the checkpoint, but it does not record a valid start.
    """
    own, config = trained_with(content, path), content.get("config")
    if own is None or not isinstance(config, dict):
        return None
    settings = cast("dict[str, object]", config)
    init, seed, digest = settings.get("init"), settings.get("seed", 0), content.get("init_sha256")
    if not isinstance(init, str | None) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise CheckpointError(path, "does not record a valid --init and --seed of its run", "give --no-zero-shot")
    if not isinstance(digest, str | None):
        raise CheckpointError(path, f"has an invalid init_sha256 {digest!r:.40}", "save or download it again")
    return RunStart(*own, init, digest, 0 if init else seed)
