"""Configuration of a training run; it is echoed to `config.json` and into every checkpoint."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schemas.prompts import PromptKind
from train.choices import DeviceChoice, ModelSize, PromptChoice
from train.dataset import prompt_kinds
from train.losses import LossConfig


class FitConfig(BaseModel):
    """One training run. The optimizer's defaults are those of SAM 2's published fine-tuning.

    Attributes:
        model: Which of Meta's four models.
        init: Checkpoint to start from; random weights without it.
        image_size: Side of the model's input in pixels.
        prompt: What each object is prompted with; `mixed` is a box or a click, drawn for each image.
        negatives: Whether stored negative points are appended.
        epochs: Passes over the training tiles.
        max_steps: Stop after so many steps, whatever the epochs.
        batch_size: Images per process and step.
        max_objects: Objects an image and step, drawn evenly from the tile's.
        workers: Loading processes; 0 loads in the training process.
        lr: Peak learning rate of prompt encoder and decoder.
        vision_lr: Peak learning rate of the image encoder.
        final_lr_fraction: Both fall along a cosine to this share.
        weight_decay: Of AdamW, on weights alone.
        clip_norm: Bound on the gradient's norm.
        freeze: Modules of SAM 2 that stay as they are.
        augment: Whether tiles are flipped and turned.
        save_every_steps: Also save within epochs; 0 saves at their ends alone.
        seed: Of initial weights, order, prompts and augmentation.
        device: `auto` takes CUDA where there is one.
        loss: Weights and choices of the loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSize = "tiny"
    init: Path | None = None
    image_size: int = Field(default=1024, ge=128, multiple_of=32)
    prompt: PromptChoice = "mixed"
    negatives: bool = False
    epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=4, ge=1)
    max_objects: int = Field(default=3, ge=1)
    workers: int = Field(default=0, ge=0)
    lr: float = Field(default=5e-6, gt=0)
    vision_lr: float = Field(default=3e-6, gt=0)
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    clip_norm: float = Field(default=0.1, gt=0)
    freeze: tuple[str, ...] = ()
    augment: bool = True
    save_every_steps: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    device: DeviceChoice = "auto"
    loss: LossConfig = LossConfig()

    @property
    def prompt_kinds(self) -> tuple[PromptKind, ...]:
        """The prompt kinds that validation scores."""
        return prompt_kinds(self.prompt)
