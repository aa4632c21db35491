"""Track objects through frames with SAM 2's memory: Meta's memory attention, memory encoder and object pointers.

This is the only file that calls the parts of Meta's model that see more than one frame. A frame is answered in three
steps: `FrameMemory.recall` puts what earlier frames showed into the frame's features, `FrameMemory.answer` decodes
masks from them, and `FrameMemory.remember` stores the answer for later frames. The memory is made from the model's own
answers, as in Meta's training and in its video predictor.
Axes: N objects, M candidate masks, K points, S side of the input in pixels, C width of the decoder.
Source: Ravi et al., SAM 2, 2024, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from train.loss.prediction import MaskPrediction
from train.model.promptable import ImageFeatures, PromptableSam


@dataclass(frozen=True)
class FrameAnswer:
    """What the model answers for N objects in one frame.

    An object score of 0 or less says that the object is hidden. The mask logits of such an object are -1024
    everywhere, so that its memory says the same, and no gradient flows through them.

    Attributes:
        prediction: The candidate masks with their estimates. In a frame that was given masks, the only candidate is
            the given mask with logits of -10 and 10, and it has the resolution of the input.
        best: The mask with the highest estimated IoU, (N, 1, S/4, S/4).
        best_full: The same mask at the resolution of the input, (N, 1, S, S).
        pointer: The object pointer, (N, C).
    """

    prediction: MaskPrediction
    best: Tensor
    best_full: Tensor
    pointer: Tensor


class FrameMemory:
    """What the model knows of N objects from the frames that it has answered.

    The model sees the memories of all frames with a prompt and of the last six others, and the pointers of at most 16
    frames. What it does not see any more is deleted.

    Args:
        model: The model.
        num_frames: Number of frames of the sequence; Meta scales the distance between frames by it.

    Attributes:
        prompted: What is stored of the frames with a prompt, by number of the frame, under Meta's names.
        tracked: The same of the other frames.
    """

    def __init__(self, model: PromptableSam, num_frames: int) -> None:
        self._sam = model.sam
        self._num_frames = num_frames
        self.prompted: dict[int, dict[str, Any]] = {}
        self.tracked: dict[int, dict[str, Any]] = {}

    def recall(self, frame: int, features: ImageFeatures) -> Tensor:
        """Return the image embedding of a frame with the memory in it, (N, C, S/16, S/16).

        Args:
            frame: Number of the frame.
            features: Features of each object's image, N rows, from `PromptableSam.encode_frames`.
        """
        coarse = features.embedding
        return self._sam._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=not self.prompted,
            current_vision_feats=[_as_sequence(coarse)],
            current_vision_pos_embeds=[_as_sequence(self._sam.image_encoder.neck.position_encoding(coarse))],
            feat_sizes=[coarse.shape[-2:]],
            output_dict={"cond_frame_outputs": self.prompted, "non_cond_frame_outputs": self.tracked},
            num_frames=self._num_frames,
        )

    def answer(
        self,
        embedding: Tensor,
        features: ImageFeatures,
        points: tuple[Tensor, Tensor] | None = None,
        mask_logits: Tensor | None = None,
    ) -> FrameAnswer:
        """Decode the masks of a frame.

        As for single images, at most one point gives three candidate masks, and a longer prompt gives one.

        Args:
            embedding: What `recall` returned.
            features: Features of each object's image, N rows, from `PromptableSam.encode_frames`.
            points: Coordinates, float32 (N, K, 2) as x, y, and labels, int32 (N, K), without padding; None in a frame
                without a prompt.
            mask_logits: (N, 1, S/4, S/4), mask logits of a previous pass as an additional prompt; None gives none.
        """
        given = None if points is None else {"point_coords": points[0], "point_labels": points[1]}
        found = self._sam._forward_sam_heads(
            backbone_features=embedding,
            point_inputs=given,
            mask_inputs=mask_logits,
            high_res_features=list(features.high_res),
            multimask_output=points is None or points[1].shape[1] <= 1,
        )
        logits, _, ious, best, best_full, pointer, presence = found
        return FrameAnswer(MaskPrediction(logits, ious, presence), best, best_full, pointer)

    def accept(self, features: ImageFeatures, masks: Tensor) -> FrameAnswer:
        """Return the answer for a frame whose masks are given: these masks, with pointers that the decoder makes.

        Args:
            features: Features of each object's image, N rows, from `PromptableSam.encode_frames`.
            masks: The given masks, bool (N, S, S).
        """
        given = masks[:, None].float()
        found = self._sam._use_mask_as_output(features.embedding, list(features.high_res), given)
        _, _, ious, best, best_full, pointer, presence = found
        return FrameAnswer(MaskPrediction(best_full, ious, presence), best, best_full, pointer)

    def remember(self, frame: int, features: ImageFeatures, answer: FrameAnswer, *, prompted: bool) -> None:
        """Store the answer for later frames.

        Args:
            frame: Number of the frame; frames are remembered in ascending order.
            features: Features of each object's image, N rows, from `PromptableSam.encode_frames`.
            answer: The answer for this frame.
            prompted: Whether the frame had a prompt. All later frames see such a frame.
        """
        stored, positions = self._sam._encode_new_memory(
            current_vision_feats=[_as_sequence(features.embedding)],
            feat_sizes=[features.embedding.shape[-2:]],
            pred_masks_high_res=answer.best_full,
            object_score_logits=answer.prediction.presence_logits,
            is_mask_from_pts=prompted,
        )
        kept = {"maskmem_features": stored, "maskmem_pos_enc": positions, "obj_ptr": answer.pointer}
        (self.prompted if prompted else self.tracked)[frame] = kept
        self.tracked.pop(frame + 1 - self._sam.max_obj_ptrs_in_encoder, None)
        if (unseen := self.tracked.get(frame + 1 - self._sam.num_maskmem)) is not None:
            del unseen["maskmem_features"], unseen["maskmem_pos_enc"]


def _as_sequence(features: Tensor) -> Tensor:
    """Turn a map (N, C, H, W) into the sequence (H W, N, C) that Meta's methods take."""
    return features.flatten(2).permute(2, 0, 1)
