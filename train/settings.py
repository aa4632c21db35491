"""The settings of single components of a run: augmentation, loss, optimizer, adapters."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AugmentConfig(Settings):
    """What is drawn; zeros switch a part off.

    Attributes:
        orientation: One of the eight flips and quarter turns.
        rotate_deg: Rotation by up to so many degrees.
        scale: Zoom by up to this share, in or out.
        shear_deg: Shear by up to so many degrees.
        crop: Random crop to down to this share of each side.
        brightness: Factor from 1 - x to 1 + x.
        contrast: Likewise.
        saturation: Likewise.
        hue: Turn of the colour circle by up to this share.
        grey: Share of images that lose their colour.
        stain: Jitter of haematoxylin, eosin and residue in optical density: factor from 1 - x to 1 + x.
    """

    orientation: bool = True
    rotate_deg: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    shear_deg: float = Field(default=0.0, ge=0, lt=45)
    crop: float = Field(default=1.0, gt=0, le=1)
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    grey: float = Field(default=0.0, ge=0, le=1)
    stain: float = Field(default=0.0, ge=0, lt=1)

    @property
    def has_affine(self) -> bool:
        """Whether an affine map is drawn."""
        return bool(self.rotate_deg or self.scale or self.shear_deg)


class LossConfig(Settings):
    """Weights and choices of the loss; the defaults are the published ones.

    Attributes:
        mask_weight: Of the focal term.
        dice_weight: Of the dice term.
        iou_weight: Of the IoU head's term.
        presence_weight: Of the object score's term.
        focal_alpha: Balance of positive against negative pixels.
        focal_gamma: Focus on hard pixels.
        iou_uses_l1: L1 for the IoU head, else squared error.
        supervise_all_iou: Whether the IoU head learns from all candidates, else from the chosen one.
        predict_presence: Whether the model scores the object's presence.
        presence_alpha: Focal balance of the presence term; negative means none.
        presence_gamma: Focal focus of the presence term.
        class_weights: Factor of an object's terms by its class code; 1 unless given.
    """

    mask_weight: float = Field(default=20.0, ge=0)
    dice_weight: float = Field(default=1.0, ge=0)
    iou_weight: float = Field(default=1.0, ge=0)
    presence_weight: float = Field(default=1.0, ge=0)
    focal_alpha: float = 0.25
    focal_gamma: float = Field(default=2.0, ge=0)
    iou_uses_l1: bool = True
    supervise_all_iou: bool = True
    predict_presence: bool = True
    presence_alpha: float = -1.0
    presence_gamma: float = 0.0
    class_weights: dict[int, float] = Field(default_factory=dict[int, float])


class OptimizerConfig(Settings):
    """AdamW and its schedule; the defaults are those of SAM 2's published fine-tuning.

    Attributes:
        lr: Peak learning rate of prompt encoder and decoder.
        vision_lr: Peak learning rate of the image encoder.
        final_lr_fraction: Both fall along a cosine to this share.
        warmup_steps: Both rise to their peak over so many steps.
        layer_decay: Each layer of the trunk learns by this factor slower than the one above it.
        weight_decay: On weights alone, neither on biases nor on norms.
        clip_norm: Bound on the gradient's norm.
        accumulate: Batches a step.
        ema_decay: Of a moving average of the weights, which is validated and becomes best.pt; 0 keeps none.
    """

    lr: float = Field(default=5e-6, gt=0)
    vision_lr: float = Field(default=3e-6, gt=0)
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    warmup_steps: int = Field(default=0, ge=0)
    layer_decay: float = Field(default=0.9, gt=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    clip_norm: float = Field(default=0.1, gt=0)
    accumulate: int = Field(default=1, ge=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)


class LoraConfig(Settings):
    """Low-rank adapters instead of full weights; Hu et al., LoRA, 2021.

    Attributes:
        rank: Of the adapters; 0 trains full weights.
        alpha: Their scale is alpha / rank.
        modules: Ends of the names of the linear layers that get one.
    """

    rank: int = Field(default=0, ge=0, le=4096)
    alpha: int = Field(default=16, gt=0)
    modules: tuple[str, ...] = ("attn.qkv", "attn.proj")
