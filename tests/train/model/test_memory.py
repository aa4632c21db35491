"""The memory of frames: what it changes, what it forgets, and what stays in evaluation mode."""

import torch

from train.model.memory import FrameMemory
from train.model.promptable import ImageFeatures, PromptableSam


def _features(model: PromptableSam, seed: int) -> ImageFeatures:
    return model.encode_frames(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(seed)) * 255)


@torch.no_grad()
def _remembering(model: PromptableSam, frames: int) -> FrameMemory:
    memory = FrameMemory(model, num_frames=frames)
    for frame in range(frames):
        features = _features(model, frame)
        if frame:
            answer = memory.answer(memory.recall(frame, features), features)
        else:
            answer = memory.accept(features, torch.ones(2, 128, 128, dtype=torch.bool))
        memory.remember(frame, features, answer, prompted=not frame)
    return memory


@torch.no_grad()
def test_first_frame_equals_a_single_image(nano: PromptableSam) -> None:
    features, images = _features(nano, 0), torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    points = torch.tensor([[[30.0, 40.0]], [[9.0, 90.0]]]), torch.ones(2, 1, dtype=torch.int32)
    memory = FrameMemory(nano, num_frames=2)
    found = memory.answer(memory.recall(0, features), features, points).prediction
    single = nano.decode(nano.encode(images), *points)
    # The object score replaces the masks of hidden objects here, as in Meta's training on frames.
    gated = torch.where(single.presence_logits[..., None, None] > 0, single.logits, torch.tensor(-1024.0))
    torch.testing.assert_close(found.logits, gated)
    torch.testing.assert_close(found.ious, single.ious)


def test_memory_holds_no_more_than_the_model_sees(nano: PromptableSam) -> None:
    memory = _remembering(nano, 20)
    assert list(memory.prompted) == [0]
    assert list(memory.tracked) == list(range(5, 20))
    with_maps = [frame for frame, kept in memory.tracked.items() if "maskmem_features" in kept]
    assert with_maps == list(range(14, 20))
    with torch.no_grad():
        assert memory.recall(20, _features(nano, 20)).shape == (2, 64, 8, 8)


def test_each_frame_before_changes_what_is_recalled(nano: PromptableSam) -> None:
    memory, features = _remembering(nano, 4), _features(nano, 9)
    with torch.no_grad():
        whole = memory.recall(4, features)
        for kept in (memory.prompted, memory.tracked):
            frame, taken = kept.popitem()
            if kept:
                assert not torch.equal(memory.recall(4, features), whole)
            kept[frame] = taken


def test_training_draws_no_random_number(nano: PromptableSam) -> None:
    nano.train()
    try:
        memory, features = _remembering(nano, 3), _features(nano, 9)
        with torch.no_grad():
            assert torch.equal(memory.recall(3, features), memory.recall(3, features))
    finally:
        nano.eval()
