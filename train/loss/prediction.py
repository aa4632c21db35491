"""What the model predicts, as the loss takes it.

Axes: N objects of one decoder pass, M candidate masks of an object, h and w pixels of the decoder, S of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MaskPrediction:
    """What one decoder pass gives for N objects.

    Attributes:
        logits: (N, M, h, w), at the decoder's resolution.
        ious: (N, M), the IoU head's estimates.
        presence_logits: (N, 1), the object score.
    """

    logits: Tensor
    ious: Tensor
    presence_logits: Tensor


@dataclass(frozen=True)
class GroupPrediction:
    """The predictions for one group of objects.

    Attributes:
        objects: int64 (N,), their places along the batch's O.
        passes: After the first prompt and after each correction: low-resolution logits (N, M, S/4, S/4), IoU
            estimates and object scores.
    """

    objects: Tensor
    passes: tuple[MaskPrediction, ...]
