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
    """Nano with random weights, under which each mask covers part of the frame."""
    torch.manual_seed(5)
    model = PromptableSam("nano", 128)
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
    """Frames as JPEG files, the only ones that Meta's predictor reads."""
    folder = tmp_path_factory.mktemp("frames")
    for number in range(FRAMES):
        Image.fromarray(colored(drifting_mask(number % 8, 0))).save(folder / f"{number:05d}.jpg", quality=95)
    return folder


def _theirs(predictor: MaskPredictor, folder: Path, prompts: list[dict[str, Any]]) -> Iterator[NDArray[np.bool_]]:
    torch.save({"model": predictor.model.sam.state_dict()}, folder / "nano.pt")
    network = SAM2.networks["nano"]
    overrides = [*network.overrides, "++model.image_size=128"]
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
    images = [np.array(Image.open(folder / f"{number:05d}.jpg")) for number in range(FRAMES)]
    if kind == "mask":
        first: Any = np.stack([drifting_mask(0, 0) == value for value in (1, 7)])
        prompts = [{"mask": mask} for mask in first]
    else:
        places, labels = PROMPTS[kind]
        coords = torch.from_numpy(places).reshape(2, -1, 2)
        first = coords, torch.tensor([labels, labels], dtype=torch.int32)
        prompts = [{"points": xy.numpy(), "labels": np.array(labels, np.int32)} for xy in coords]
    overlaps, areas = [], []
    ours = follow(predictor, images, first, FRAMES)
    for logits, theirs in zip(ours, _theirs(predictor, folder, prompts), strict=True):
        mine = logits > 0
        union = np.count_nonzero(mine | theirs, axis=(1, 2))
        overlaps.append(np.count_nonzero(mine & theirs, axis=(1, 2)) / np.maximum(union, 1) + (union == 0))
        areas.append(np.count_nonzero(mine, axis=(1, 2)))
    assert np.min(overlaps) >= 0.99
    assert 0.05 * 128**2 < np.min(areas[1:]) <= np.max(areas[1:]) < 0.85 * 128**2
