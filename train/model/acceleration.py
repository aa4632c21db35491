"""Ways to train faster or in less memory that leave every result as it is: compiled parts, recomputed activations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import mark_static
from torch.utils.checkpoint import checkpoint

COMPILED_FORMS = 32
"""How many versions of a part may be compiled for other sizes before torch gives up and runs it uncompiled."""


def compile_parts(sam: Any, image_size: int) -> None:
    """Compile the image encoder and the mask decoder of SAM 2 in place; their parameters keep their names.

    Args:
        sam: Meta's model.
        image_size: Side of its input in pixels.
    """
    encoder, decoder = sam.image_encoder, sam.sam_mask_decoder
    # The encoder keeps position embeddings by size after the first call. If the first call were traced, it would be
    # traced a second time.
    device = next(encoder.parameters()).device
    with torch.no_grad():
        encoder.forward(torch.zeros(1, 3, image_size, image_size, device=device))
    # A last batch that is smaller gets code of its own. Otherwise full batches would lose theirs to code for any size.
    encoder.compile(dynamic=False)
    # The number of objects stays open, and each number of points gets code of its own: with that open, too, torch 2.14
    # makes code that fails on the strides of the first call. Box and click, first prompt and correction, and a batch of
    # one object are more versions than torch expects of one module.
    limits = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    limits.cache_size_limit = max(limits.cache_size_limit, COMPILED_FORMS)
    decoder.compile(dynamic=True)


def fix_all_but_rows(*tensors: Tensor) -> None:
    """Tell the compiler that only the first axis of these inputs varies from call to call."""
    for tensor in tensors:
        mark_static(tensor, list(range(1, tensor.dim())))


def recompute_activations(sam: Any) -> None:
    """Store only the input of each block of the trunk, and compute the rest a second time in the backward pass.

    The gradients are the same to the bit. This takes less memory and one more forward pass.
    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    """
    for block in sam.image_encoder.trunk.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
