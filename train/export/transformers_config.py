"""Make the settings that `transformers` reads for SAM 2: those of the network and those for resizing images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from train.model.promptable import CHANNEL_MEAN, CHANNEL_STD, PromptableSam

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

PAD_POINT = -10
BILINEAR = 2


def network_config(model: PromptableSam) -> dict[str, Any]:
    """Return the content of `config.json`, which describes the network.

    Args:
        model: The model. Widths and depths are read from its modules, so that every network can be described.
    """
    sam = cast("SAM2Base", model.sam)
    trunk: Any = sam.image_encoder.trunk
    neck: Any = sam.image_encoder.neck
    decoder: Any = sam.sam_mask_decoder
    side = model.image_size
    starts = [0, *(end + 1 for end in trunk.stage_ends[:-1])]
    stages = [trunk.blocks[end] for end in trunk.stage_ends]
    widths = [block.dim_out for block in stages]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": widths[0],
        "num_attention_heads": stages[0].attn.num_heads,
        "image_size": [side, side],
        "blocks_per_stage": [end + 1 - start for start, end in zip(starts, trunk.stage_ends, strict=True)],
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [block.attn.num_heads for block in stages],
        "window_size_per_stage": list(trunk.window_spec),
        "global_attention_blocks": list(trunk.global_att_blocks),
        "query_stride": list(trunk.q_stride),
        "num_query_pool_stages": len(trunk.q_pool_blocks),
        "window_positional_embedding_background_size": list(trunk.window_pos_embed_bkg_spatial_size),
    }
    strides = model.backbone.level_strides
    return {
        "architectures": ["Sam2Model"],
        "model_type": "sam2",
        "dtype": "float32",
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": list(neck.backbone_channel_list),
            "backbone_feature_sizes": [[side // stride] * 2 for stride in strides],
            "fpn_hidden_size": neck.d_model,
            "fpn_top_down_levels": list(neck.fpn_top_down_levels),
            "num_feature_levels": len(strides),
        },
        "prompt_encoder_config": {
            "model_type": "sam2_prompt_encoder",
            "hidden_size": decoder.transformer_dim,
            "image_size": side,
            "patch_size": strides[-1],
        },
        "mask_decoder_config": {
            "model_type": "sam2_mask_decoder",
            "hidden_size": decoder.transformer_dim,
            "mlp_dim": decoder.transformer.mlp_dim,
            "num_hidden_layers": decoder.transformer.depth,
            "num_attention_heads": decoder.transformer.num_heads,
            "num_multimask_outputs": decoder.num_multimask_outputs,
            "iou_head_hidden_dim": decoder.iou_prediction_head.layers[0].out_features,
            # If this were on, it would replace an unstable mask by another candidate than the trained one.
            "dynamic_multimask_via_stability": False,
        },
    }


def processor_config(image_size: int) -> dict[str, Any]:
    """Return the content of `processor_config.json`, which describes how images and points are resized.

    Args:
        image_size: Side of the network's input in pixels.
    """
    side, quarter = image_size, image_size // 4
    return {
        "processor_class": "Sam2Processor",
        "target_size": side,
        "point_pad_value": PAD_POINT,
        "image_processor": {
            "image_processor_type": "Sam2ImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "mask_size": {"height": quarter, "width": quarter},
            "resample": BILINEAR,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(CHANNEL_MEAN),
            "image_std": list(CHANNEL_STD),
        },
    }
