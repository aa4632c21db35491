"""Masks that are followed through frames equal those of Meta's video predictor, whatever the prompt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor

from tests.train.sequences import colored, drifting_mask
from train.backbone.sam2 import SAM2
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.propagate.follow import follow

FRAMES = 19
"""More frames than the model has pointers for (16), and more than it has memories of (7)."""


@pytest.fixture(scope="module")
def predictor() -> MaskPredictor:
    """Nano at 128 px."""
    return _random_predictor(128)


def _random_predictor(image_size: int) -> MaskPredictor:
    """Nano with random weights, under which each mask covers part of the frame."""
    torch.manual_seed(5)
    model = PromptableSam("nano", image_size)
    with torch.no_grad():
        for parameter in model.sam.parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape) / fan_in**0.5)
        # Every object counts as present, so every frame has masks.
        model.sam.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").add_(10)
    return MaskPredictor(model.eval(), torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More frames than the memory holds."""
    return _write_frames(tmp_path_factory.mktemp("frames"), FRAMES)


def _write_frames(folder: Path, frames: int, scale: int = 1) -> Path:
    """Write frames as JPEG files, the only ones that Meta's predictor reads."""
    for number in range(frames):
        Image.fromarray(colored(_enlarged(drifting_mask(number % 8, 0), scale))).save(
            folder / f"{number:05d}.jpg", quality=95
        )
    return folder


def _enlarged(ids: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return ids.repeat(scale, 0).repeat(scale, 1)


def _theirs(predictor: MaskPredictor, folder: Path, prompts: list[dict[str, Any]]) -> Iterator[NDArray[np.bool_]]:
    torch.save({"model": predictor.model.sam.state_dict()}, folder / "nano.pt")
    network = SAM2.networks["nano"]
    overrides = [*network.overrides, f"++model.image_size={predictor.model.image_size}"]
    meta = build_sam2_video_predictor(
        network.config_file,
        str(folder / "nano.pt"),
        device="cpu",
        hydra_overrides_extra=overrides,
        apply_postprocessing=False,
    )
    state = meta.init_state(str(folder))
    for number, prompt in enumerate(prompts):
        add = meta.add_new_mask if "mask" in prompt else meta.add_new_points_or_box
        add(state, 0, number, **prompt)
    for _, _, logits in meta.propagate_in_video(state):
        yield (logits[:, 0] > 0).numpy()


PROMPTS = {
    "box": (np.array([[6, 22, 46, 50], [60, 68, 99, 87]], np.float32), [2, 3]),
    "click": (np.array([[26, 36], [80, 76]], np.float32), [1]),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
@pytest.mark.parametrize("kind", ["mask", "box", "click"])
def test_masks_equal_those_of_metas_video_predictor(predictor: MaskPredictor, folder: Path, kind: str) -> None:
    _assert_equal_masks(predictor, folder, kind, FRAMES)


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
@pytest.mark.parametrize("image_size", [64, 256])
@pytest.mark.parametrize("kind", ["mask", "box", "click"])
def test_masks_of_resized_frames_equal_those_of_metas_video_predictor(
    tmp_path: Path, kind: str, image_size: int
) -> None:
    """The input is half or twice as large as the frames, so pixels, masks and points are scaled as Meta scales them."""
    _assert_equal_masks(_random_predictor(image_size), _write_frames(tmp_path, 3), kind, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script")
@pytest.mark.parametrize(("kind", "scale"), [(kind, scale) for scale in (8, 1) for kind in ("mask", "box", "click")])
def test_masks_at_1024_px_equal_those_of_metas_video_predictor(tmp_path: Path, kind: str, scale: int) -> None:
    """Frames of 128 px are resized by the filter of Meta's video predictor; frames of 1024 px are used as they are."""
    _assert_equal_masks(_random_predictor(1024), _write_frames(tmp_path, 3, scale=scale), kind, 3, scale=scale)


def _assert_equal_masks(predictor: MaskPredictor, folder: Path, kind: str, frames: int, scale: int = 1) -> None:
    images = [np.array(Image.open(folder / f"{number:05d}.jpg")) for number in range(frames)]
    if kind == "mask":
        first: Any = np.stack([_enlarged(drifting_mask(0, 0), scale) == value for value in (1, 7)])
        prompts = [{"mask": mask} for mask in first]
    else:
        places, labels = PROMPTS[kind]
        coords = torch.from_numpy(places * scale).reshape(2, -1, 2)
        first = coords, torch.tensor([labels, labels], dtype=torch.int32)
        prompts = [{"points": xy.numpy(), "labels": np.array(labels, np.int32)} for xy in coords]
    overlaps, areas = [], []
    ours = follow(predictor, images, first, frames)
    for logits, theirs in zip(ours, _theirs(predictor, folder, prompts), strict=True):
        mine = logits > 0
        union = np.count_nonzero(mine | theirs, axis=(1, 2))
        overlaps.append(np.count_nonzero(mine & theirs, axis=(1, 2)) / np.maximum(union, 1) + (union == 0))
        areas.append(np.count_nonzero(mine, axis=(1, 2)))
    assert np.min(overlaps) >= 0.99
    pixels = images[0].shape[0] * images[0].shape[1]
    assert 0.05 * pixels < np.min(areas[1:]) <= np.max(areas[1:]) < 0.85 * pixels
