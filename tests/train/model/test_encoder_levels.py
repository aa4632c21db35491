"""The stored features of a frozen encoder: the smallest exact form is chosen, and completing it loses nothing."""

from typing import cast

import pytest
import torch

from train.backbone.catalog import ModelSize
from train.model.promptable import ImageFeatures, PromptableSam

FINE_LAYERS = ("sam_mask_decoder.conv_s0", "sam_mask_decoder.conv_s1")


def _model(size: str, frozen: tuple[str, ...]) -> PromptableSam:
    torch.manual_seed(0)
    model = PromptableSam(cast("ModelSize", size), 128)
    model.freeze(("image_encoder", *frozen))
    return model.train()


@pytest.mark.parametrize(
    ("size", "frozen", "forms"),
    [
        ("tiny", (), [("trunk", 96), ("trunk", 192), ("neck", 256)]),
        ("tiny", FINE_LAYERS, [("decoder", 32), ("decoder", 64), ("neck", 256)]),
        ("tiny", FINE_LAYERS[1:], [("trunk", 96), ("decoder", 64), ("neck", 256)]),
        ("tiny", ("sam_mask_decoder.conv_s0.weight",), None),
        ("large", (), [("trunk", 144), ("neck", 256), ("neck", 256)]),
    ],
)
def test_smallest_form_is_stored_and_loses_nothing(size: str, frozen: tuple[str, ...], forms) -> None:
    if forms is None:
        # A layer counts as trained if any of its parameters is trained.
        model = _model(size, FINE_LAYERS)
        model.sam.sam_mask_decoder.get_parameter("conv_s0.bias").requires_grad_(True)
        forms = [("trunk", 96), ("decoder", 64), ("neck", 256)]
    else:
        model = _model(size, frozen)
    assert [(level.form, level.channels) for level in model.kept_levels] == forms
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    kept = model.encode_kept(images)
    assert [values.shape[1:] for values in kept] == [level.shape for level in model.kept_levels]
    assert not any(values.requires_grad for values in kept)
    ours, plain = model.encode_from([values.contiguous() for values in kept]), model.encode(images)
    for mine, theirs in zip(_tensors(ours), _tensors(plain), strict=True):
        assert torch.equal(mine, theirs)
    gradients = [_gradients(model, features) for features in (ours, plain)]
    assert gradients[0].keys() == gradients[1].keys()
    # Sums follow the order in memory, and the order of the finest level differs.
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def _tensors(features: ImageFeatures) -> list[torch.Tensor]:
    return [features.embedding, *features.high_res]


def _gradients(model: PromptableSam, features: ImageFeatures) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.stack([values.square().sum() for values in _tensors(features)]).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
