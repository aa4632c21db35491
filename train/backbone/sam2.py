"""SAM 2.1 as Meta's package `sam2` builds it, and a miniature of it named `nano`.

`nano` is Meta's tiny configuration with smaller widths, which are set only by overrides. The installed `build_sam2` can
build it and load its checkpoints if it gets the same overrides. It has 2.5 million parameters instead of 39 million and
is meant for tests, demonstrations and laptops.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from train.backbone.description import Backbone, Network

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_MEMORY_MODULES = ("memory_attention", "memory_encoder", "obj_ptr_proj", "obj_ptr_tpos_proj", "mask_downsample")
_MEMORY_VECTORS = ("maskmem_tpos_enc", "no_obj_ptr", "no_obj_embed_spatial")

_NANO_WIDTH = 64
_NANO_MEMORY_WIDTH = 16

NANO_OVERRIDES = (
    "++model.image_encoder.trunk.embed_dim=32",
    "++model.image_encoder.trunk.stages=[1,2,3,1]",
    # A block with global attention must not be the first block of its stage.
    "++model.image_encoder.trunk.global_att_blocks=[4,5]",
    f"++model.image_encoder.neck.d_model={_NANO_WIDTH}",
    f"++model.image_encoder.neck.position_encoding.num_pos_feats={_NANO_WIDTH}",
    "++model.image_encoder.neck.backbone_channel_list=[256,128,64,32]",
    f"++model.memory_attention.d_model={_NANO_WIDTH}",
    "++model.memory_attention.num_layers=1",
    f"++model.memory_attention.layer.d_model={_NANO_WIDTH}",
    "++model.memory_attention.layer.dim_feedforward=256",
    f"++model.memory_attention.layer.self_attention.embedding_dim={_NANO_WIDTH}",
    f"++model.memory_attention.layer.cross_attention.embedding_dim={_NANO_WIDTH}",
    f"++model.memory_attention.layer.cross_attention.kv_in_dim={_NANO_MEMORY_WIDTH}",
    f"++model.memory_encoder.out_dim={_NANO_MEMORY_WIDTH}",
    f"++model.memory_encoder.position_encoding.num_pos_feats={_NANO_MEMORY_WIDTH}",
    f"++model.memory_encoder.in_dim={_NANO_WIDTH}",
    f"++model.memory_encoder.mask_downsampler.embed_dim={_NANO_WIDTH}",
    f"++model.memory_encoder.fuser.layer.dim={_NANO_WIDTH}",
)
"""The settings that `nano` changes in the tiny configuration."""


@cache
def _configuration(config_file: str, overrides: tuple[str, ...]) -> Any:
    """Compose a configuration as `build_sam2` does; that takes longer than to build `nano` from it."""
    from sam2 import build_sam

    configuration = build_sam.compose(config_name=config_file, overrides=list(overrides))
    build_sam.OmegaConf.resolve(configuration)
    return configuration


def _build(network: Network, image_size: int) -> SAM2Base:
    # Import sam2 only here: the import takes seconds, and `--help` must not wait for it.
    from sam2 import build_sam

    # `build_sam2` would by default replace a single mask that is not stable by another candidate mask; this does not.
    configuration = _configuration(network.config_file, (f"++model.image_size={image_size}", *network.overrides))
    return cast("SAM2Base", build_sam.instantiate(configuration.model, _recursive_=True).eval())


SAM2 = Backbone(
    networks={
        "nano": Network("configs/sam2.1/sam2.1_hiera_t.yaml", NANO_OVERRIDES, trunk_width=32, trunk_blocks=7),
        "tiny": Network("configs/sam2.1/sam2.1_hiera_t.yaml", (), trunk_width=96, trunk_blocks=12),
        "small": Network("configs/sam2.1/sam2.1_hiera_s.yaml", (), trunk_width=96, trunk_blocks=16),
        "base_plus": Network("configs/sam2.1/sam2.1_hiera_b+.yaml", (), trunk_width=112, trunk_blocks=24),
        "large": Network("configs/sam2.1/sam2.1_hiera_l.yaml", (), trunk_width=144, trunk_blocks=48),
    },
    build=_build,
    trained_modules=("image_encoder", "sam_prompt_encoder", "sam_mask_decoder"),
    # The learned vector that SAM 2 adds to the features of a single image in place of an empty memory.
    trained_vectors=("no_mem_embed",),
    memory_modules=_MEMORY_MODULES,
    memory_vectors=_MEMORY_VECTORS,
    mask_pointer="mask_downsample",
    freeze_presets={
        "none": (),
        "decoder_only": ("image_encoder", "sam_prompt_encoder", "no_mem_embed"),
        "decoder_and_neck": ("image_encoder.trunk", "sam_prompt_encoder", "no_mem_embed"),
        "memory": (*_MEMORY_MODULES, *_MEMORY_VECTORS),
    },
    encoder="image_encoder",
    trunk="image_encoder.trunk",
    trunk_block=r"image_encoder\.trunk\.blocks\.(\d+)\.",
    patch_embedding="image_encoder.trunk.patch_embed.proj.weight",
    full_rate="pos_embed",
    norm_classes=("LayerNorm", "GroupNorm", "LayerNorm2d"),
    mask_prompt_layers="sam_prompt_encoder.mask_downscaling",
    presence_head="sam_mask_decoder.pred_obj_score_head",
    level_strides=(4, 8, 16),
    level_layers=("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1", None),
    # SAM 2.1 added these to SAM 2.0.
    newer_weights=("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"),
)
