"""Rename SAM 2's weights to the names of `transformers.Sam2Model`.

Source of the names: transformers, `models/sam2/modeling_sam2.py`. That model predicts single images, so it has no
weights for the memory. The values of the weights do not change.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_POINTS = "sam_prompt_encoder.point_embeddings."
_FREQUENCIES = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# The three layers of each head and the two layers of each block's MLP, by their position in Meta's lists.
_HEADS = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+)"
_HEAD_LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}
_BLOCK_LAYERS = {"0": "proj_in", "1": "proj_out"}
_UPSCALING = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
_DOWNSCALING = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}


def transformers_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of SAM 2 for `transformers.Sam2Model`.

    Args:
        weights: Tensors under Meta's names.

    Returns:
        The same tensors under the names of transformers. Weights for the memory are left out.
    """
    found = {name: weights[meta] for meta in weights if (name := _renamed(meta)) is not None}
    points = sorted(name for name in weights if name.startswith(_POINTS))
    found["prompt_encoder.point_embed.weight"] = torch.cat([weights[name] for name in points])
    # Two modules share this matrix. safetensors does not store two tensors in the same memory.
    found["shared_image_embedding.positional_embedding"] = weights[_FREQUENCIES]
    found["prompt_encoder.shared_embedding.positional_embedding"] = weights[_FREQUENCIES].clone()
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def _renamed(name: str) -> str | None:
    """Return the name of a weight in transformers; None if it is merged, shared, or only for the memory."""
    module, _, rest = name.partition(".")
    if name == "no_mem_embed":
        return "no_memory_embedding"
    if module == "image_encoder":
        return "vision_encoder." + _of_encoder(rest)
    if module == "sam_mask_decoder":
        return "mask_decoder." + _of_decoder(rest)
    if module == "sam_prompt_encoder" and not name.startswith(_POINTS) and name != _FREQUENCIES:
        return "prompt_encoder." + re.sub(
            r"mask_downscaling\.(\d)", lambda found: f"mask_embed.{_DOWNSCALING[found[1]]}", rest
        )
    return None


def _of_encoder(name: str) -> str:
    name = re.sub(r"^trunk\.", "backbone.", name)
    name = re.sub(r"^(neck\.convs\.\d+)\.conv\.", r"\1.", name)
    name = name.replace("patch_embed.proj.", "patch_embed.projection.")
    return _of_block(name)


def _of_decoder(name: str) -> str:
    name = re.sub(_HEADS + r"\.layers\.(\d)", lambda found: f"{found[1]}.{_HEAD_LAYERS[found[2]]}", name)
    name = re.sub(r"^output_upscaling\.(\d)", lambda found: _UPSCALING[found[1]], name)
    name = name.replace(".out_proj.", ".o_proj.").replace(".norm_final_attn.", ".layer_norm_final_attn.")
    return _of_block(name)


def _of_block(name: str) -> str:
    name = re.sub(r"\.mlp\.layers\.(\d)", lambda found: f".mlp.{_BLOCK_LAYERS[found[1]]}", name)
    return re.sub(r"\.norm(\d)\.", r".layer_norm\1.", name)
