import pytest
import torch

from train.config import FitConfig
from train.model import PromptableSam
from train.optimizer import make_optimizer, set_learning_rates


@pytest.fixture(scope="module")
def model() -> PromptableSam:
    return PromptableSam("tiny", 128)


def test_every_trained_parameter_is_in_one_group_with_its_rate_and_decay(model: PromptableSam) -> None:
    optimizer = make_optimizer(model, FitConfig(lr=2e-4, vision_lr=1e-4))
    seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(seen) == len(set(seen)) == len(trained)
    assert not any("memory" in name or "obj_ptr" in name for name in trained)
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in trained.items():
        group = group_of[id(parameter)]
        assert group["name"] == ("vision" if "image_encoder" in name else "decoder")
        if name.endswith("bias") or ".norm" in name:
            assert group["weight_decay"] == 0.0
    attention = dict(model.named_parameters())["sam.image_encoder.trunk.blocks.0.attn.qkv.weight"]
    assert group_of[id(attention)]["weight_decay"] == 0.1


def test_rates_follow_a_cosine_to_their_fraction(model: PromptableSam) -> None:
    optimizer = make_optimizer(model, FitConfig(lr=2e-4, vision_lr=1e-4))
    first = set_learning_rates(optimizer, 0, 11, 0.1)
    middle = set_learning_rates(optimizer, 5, 11, 0.1)
    last = set_learning_rates(optimizer, 10, 11, 0.1)
    assert first == {"vision": pytest.approx(1e-4), "decoder": pytest.approx(2e-4)}
    assert middle["decoder"] == pytest.approx(2e-4 * 0.55)
    assert last["vision"] == pytest.approx(1e-5)
    assert isinstance(optimizer, torch.optim.AdamW)
