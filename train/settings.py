"""Settings of a run's components: augmentation, loss, optimizer and adapters."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A group of settings. It cannot be changed, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LossConfig(Settings):
    """Weights and choices of the loss; the defaults are the published ones.

    Attributes:
        mask_weight: Weight of the focal term.
        dice_weight: Weight of the Dice term.
        iou_weight: Weight of the IoU head's term.
        presence_weight: Weight of the term of the object score.
        focal_alpha: Balance of positive and negative pixels in the focal term; negative means none.
        focal_gamma: Exponent of the focal term; larger values give hard pixels more weight.
        iou_uses_l1: Whether the IoU head's term is the L1 error; otherwise it is the squared error.
        supervise_all_iou: Whether the IoU head learns from all candidate masks; otherwise only from the chosen one.
        predict_presence: Whether the object score is trained; it says whether the object is present.
        presence_alpha: Balance of the presence term, as `focal_alpha`; negative means none.
        presence_gamma: Exponent of the presence term, as `focal_gamma`.
        class_weights: Factor on an object's terms, by its class code; 1 for classes that are not listed.
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
    """AdamW and its learning-rate schedule; the defaults are those of SAM 2's published fine-tuning.

    Attributes:
        lr: Peak learning rate of prompt encoder and mask decoder.
        vision_lr: Peak learning rate of the image encoder.
        final_lr_fraction: Share of its peak to which each learning rate falls along a cosine.
        warmup_steps: Steps in which both learning rates rise to their peaks.
        layer_decay: Factor on the learning rate from each layer of the trunk to the layer below it.
        weight_decay: Weight decay of AdamW; biases and norm layers have none.
        clip_norm: Largest norm of the gradient; a longer gradient is scaled down to it.
        accumulate: Batches per step, whose gradients are summed.
        ema_decay: Decay of a moving average of the weights; best.pt holds the average or the weights, whichever is
            better. 0 keeps none.
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
    """Low-rank adapters, trained instead of full weights. Source: Hu et al., LoRA, 2021.

    Attributes:
        rank: Rank of the adapters; 0 trains full weights.
        alpha: Numerator of the adapters' scale, which is alpha / rank.
        modules: Name endings of the linear layers that get an adapter.
    """

    rank: int = Field(default=0, ge=0, le=4096)
    alpha: int = Field(default=16, gt=0)
    modules: tuple[str, ...] = ("attn.qkv", "attn.proj")
