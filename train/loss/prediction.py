"""The predictions of the model in the form that the loss takes.

Axes: N objects of one decoder pass, M candidate masks per object, h and w pixels of the decoder's output, S pixels on
a side of the model's input.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MaskPrediction:
    """The output of one decoder pass for N objects.

    Attributes:
        logits: The candidate masks at the decoder's resolution, (N, M, h, w).
        ious: The IoU that the IoU head estimates for each candidate mask, (N, M).
        presence_logits: The object score as a logit, (N, 1).
    """

    logits: Tensor
    ious: Tensor
    presence_logits: Tensor


@dataclass(frozen=True)
class GroupPrediction:
    """The predictions for one group of objects in one frame.

    Attributes:
        objects: Indices of the group's objects along the batch's axis O, int64 (N,).
        passes: The output of the decoder after the first prompt and after each correction click; the mask logits are
            (N, M, S/4, S/4).
        frame: Number of the frame along the batch's axis T.
    """

    objects: Tensor
    passes: tuple[MaskPrediction, ...]
    frame: int = 0
