"""The fast loss is the plain one: values, gradients, and what is kept for the backward pass."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.train.plain_loss import plain_loss
from train.loss.mask_loss import mask_loss
from train.loss.pixel_terms import EAGER, Kernels, compiled_kernels
from train.loss.prediction import MaskPrediction
from train.settings import LossConfig


def _case(seed: int, masks: int, side: int = 8, objects: int = 4) -> tuple[MaskPrediction, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = MaskPrediction(
        (4 * torch.randn(objects, masks, side, side, generator=generator)).requires_grad_(),
        torch.rand(objects, masks, generator=generator).requires_grad_(),
        torch.randn(objects, 1, generator=generator).requires_grad_(),
    )
    targets = torch.rand(objects, 4 * side, 4 * side, generator=generator) > 0.6
    valid = torch.rand(objects, 4 * side, 4 * side, generator=generator) > 0.2
    targets[0] = seed % 2 > 0
    valid[1] = seed % 3 > 0
    return prediction, targets, valid, 0.5 + torch.rand(objects, generator=generator)


def _gradients(loss: Tensor, prediction: MaskPrediction) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (prediction.logits, prediction.ious, prediction.presence_logits))


def _check(seed: int, masks: int, config: LossConfig, kernels: Kernels) -> None:
    prediction, targets, valid, weights = _case(seed, masks)
    ours = mask_loss(prediction, targets, valid, 3, config, weights, kernels).total
    plain = plain_loss(prediction, targets, valid, 3, config, weights)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(_gradients(ours, prediction), _gradients(plain, prediction), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3]),
    st.sampled_from([-1.0, 0.25, 0.8]),
    st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    st.booleans(),
)
def test_values_and_gradients_are_those_of_the_plain_loss(
    seed: int, masks: int, alpha: float, gamma: float, supervise_all: bool
) -> None:
    config = LossConfig(
        focal_alpha=alpha, focal_gamma=gamma, supervise_all_iou=supervise_all, iou_uses_l1=bool(seed % 2)
    )
    _check(seed, masks, config, EAGER)


@pytest.mark.parametrize("logit", [-200.0, -30.0, 0.0, 30.0, 200.0])
def test_extreme_logits_keep_loss_and_gradient_finite(logit: float) -> None:
    prediction, targets, valid, weights = _case(1, 1)
    with torch.no_grad():
        prediction.logits.fill_(logit)
    loss = mask_loss(prediction, targets, valid, 3, LossConfig(), weights).total
    wanted = _gradients(plain_loss(prediction, targets, valid, 3, LossConfig(), weights), prediction)[0]
    torch.testing.assert_close(_gradients(loss, prediction)[0], wanted, rtol=1e-4, atol=1e-7)


def test_half_precision_logits_get_a_gradient_of_their_type() -> None:
    prediction, targets, valid, weights = _case(1, 3)
    half = MaskPrediction(
        prediction.logits.detach().bfloat16().requires_grad_(), prediction.ious, prediction.presence_logits
    )
    loss = mask_loss(half, targets, valid, 3, LossConfig(), weights).total
    wanted = _gradients(plain_loss(half, targets, valid, 3, LossConfig(), weights), half)[0]
    found = _gradients(loss, half)[0]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)


def test_nothing_is_kept_in_float_at_full_resolution() -> None:
    prediction, targets, valid, weights = _case(0, 3, side=32)

    def kept(loss_of: object) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            assert callable(loss_of)
            loss_of()
        return sum(sizes.values())

    ours = kept(lambda: mask_loss(prediction, targets, valid, 3, LossConfig(), weights).total)
    plain = kept(lambda: plain_loss(prediction, targets, valid, 3, LossConfig(), weights))
    one_map = targets.numel() * 4
    assert ours < one_map
    assert plain > 12 * one_map


@pytest.mark.slow
@pytest.mark.parametrize("masks", [1, 3])
def test_compiled_kernels_are_the_plain_loss(masks: int) -> None:
    kernels = compiled_kernels()
    for seed in range(3):
        _check(seed, masks, LossConfig(), kernels)
