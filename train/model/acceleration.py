"""Compile parts and recompute activations: training gets faster or needs less memory, and results stay the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

COMPILED_FORMS = 32
"""Largest number of compiled versions of one part, for different sizes; above it torch runs the part uncompiled."""


def compile_parts(sam: Any, image_size: int) -> bool:
    """Compile SAM 2's image encoder and mask decoder in place; the parameters keep their names.

    On a GPU, a frozen encoder is also recorded as one CUDA graph for each batch size. The host then launches it at once
    instead of kernel by kernel. A trained encoder is not, because its gradients are added up over several batches.

    Args:
        sam: Meta's model.
        image_size: Side of the model's input in pixels.

    Returns:
        Whether the encoder is recorded. Then `begin_recorded_call` must be called before each call of the encoder.
    """
    encoder, decoder = sam.image_encoder, sam.sam_mask_decoder
    # The encoder caches position embeddings by size in its first call. This call fills the cache; otherwise the encoder
    # would be traced twice.
    device = next(encoder.parameters()).device
    with torch.no_grad():
        encoder.forward(torch.zeros(1, 3, image_size, image_size, device=device))
    # A smaller last batch gets its own code. Otherwise torch would replace the code for full batches by code for any
    # size.
    recorded = device.type == "cuda" and not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.compile(dynamic=False, mode="reduce-overhead" if recorded else "default")
    # One version serves any number of objects, but each number of points gets its own. If the number of points were
    # dynamic too, torch 2.14 would make code that fails on the strides of the first call. Box and click, first prompt
    # and correction, and a batch of one object need more versions than torch allows by default.
    limits = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    limits.cache_size_limit = max(limits.cache_size_limit, COMPILED_FORMS)
    decoder.compile(dynamic=True)
    return recorded


def begin_recorded_call() -> None:
    """Allow the next call of a recorded part to overwrite its last output, which must not be used after that."""
    torch.compiler.cudagraph_mark_step_begin()


def fix_all_but_rows(*tensors: Tensor) -> None:
    """Tell the compiler that only the first axis of these inputs varies between calls."""
    # Importing the compiler takes a second, and only compiled runs need it.
    from torch._dynamo import mark_static

    for tensor in tensors:
        mark_static(tensor, list(range(1, tensor.dim())))


def recompute_activations(sam: Any) -> None:
    """Store only the input of each trunk block, and recompute the rest in the backward pass.

    The gradients are bit-for-bit the same. This needs less memory, and one more forward pass of the trunk.
    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """
    for block in sam.image_encoder.trunk.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
