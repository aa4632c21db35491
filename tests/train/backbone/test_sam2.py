"""The description of SAM 2 agrees with Meta's models, and nano is one of them with smaller widths."""

from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch
from sam2.build_sam import build_sam2

from train.backbone.catalog import MODEL_SIZES, ModelSize, backbone_of
from train.backbone.sam2 import NANO_OVERRIDES, SAM2
from train.model.promptable import PromptableSam


def test_every_network_has_a_backbone() -> None:
    assert set(get_args(ModelSize)) == set(SAM2.networks)
    assert all(backbone_of(size) is SAM2 for size in MODEL_SIZES)


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_names_in_the_description_exist_in_the_network(size: str) -> None:
    sam: Any = SAM2.build(SAM2.networks[size], 128)
    parameters = dict(sam.named_parameters())
    for name in (
        *SAM2.trained_modules,
        *SAM2.memory_modules,
        SAM2.mask_pointer,
        SAM2.trunk,
        SAM2.mask_prompt_layers,
        SAM2.presence_head,
    ):
        assert sam.get_submodule(name)
    for name in filter(None, SAM2.level_layers):
        assert isinstance(sam.get_submodule(name), torch.nn.Conv2d)
    for name in SAM2.vectors:
        assert sam.get_parameter(name).numel() == parameters[name].numel()
    for names in SAM2.freeze_presets.values():
        assert all(name in SAM2.vectors or sam.get_submodule(name) for name in names)
    network = SAM2.networks[size]
    assert parameters[SAM2.patch_embedding].shape[0] == network.trunk_width
    assert SAM2.trunk_depth(parameters) == network.trunk_blocks
    assert SAM2.recognize(sam.state_dict()) == size
    assert SAM2.recognize({}) is None


def test_build_sam2_builds_nano_and_loads_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = PromptableSam("nano", 128)
    assert 2.4e6 < sum(parameter.numel() for parameter in ours.sam.parameters()) < 2.6e6
    torch.save({"model": ours.sam.state_dict()}, tmp_path / "nano.pt")
    network = SAM2.networks["nano"]
    theirs = build_sam2(
        network.config_file, str(tmp_path / "nano.pt"), device="cpu", hydra_overrides_extra=list(NANO_OVERRIDES)
    )
    for name, weight in ours.sam.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], weight), name


@torch.no_grad()
def test_memory_of_nano_fits_its_features() -> None:
    """Two frames pass through the memory encoder and the memory attention, which training on images does not use."""
    torch.manual_seed(0)
    sam: Any = SAM2.build(SAM2.networks["nano"], 128)
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    prompt = {"point_coords": torch.tensor([[[60.0, 60.0]]]), "point_labels": torch.ones(1, 1, dtype=torch.int32)}
    for frame in range(2):
        features = sam.forward_image(torch.rand(1, 3, 128, 128))
        _, vision, positions, sizes = sam._prepare_backbone_features(features)
        found = sam.track_step(
            frame_idx=frame,
            is_init_cond_frame=frame == 0,
            current_vision_feats=vision,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=prompt if frame == 0 else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=2,
        )
        outputs["cond_frame_outputs" if frame == 0 else "non_cond_frame_outputs"][frame] = found
        assert found["pred_masks"].shape == (1, 1, 32, 32)
    memory = outputs["non_cond_frame_outputs"][1]["maskmem_features"]
    assert cast("torch.Tensor", memory).shape[1] == 16


def test_trunk_layers_are_counted_from_the_last_one() -> None:
    depth = 7
    assert SAM2.layers_above("image_encoder.trunk.blocks.6.attn.qkv.weight", depth) == 1
    assert SAM2.layers_above("image_encoder.trunk.blocks.0.norm1.bias", depth) == depth
    assert SAM2.layers_above("image_encoder.trunk.patch_embed.proj.weight", depth) == depth + 1
    assert SAM2.layers_above("image_encoder.trunk.pos_embed", depth) == 0
    assert SAM2.layers_above("image_encoder.neck.convs.0.conv.weight", depth) == 0
    assert SAM2.learning_rate_part("image_encoder.neck.convs.0.conv.weight") == "vision"
    assert SAM2.learning_rate_part("sam_mask_decoder.iou_token.weight") == "decoder"
    assert SAM2.expand_presets(["decoder_only", "image_encoder"]) == (
        *SAM2.freeze_presets["decoder_only"],
        "image_encoder",
    )
