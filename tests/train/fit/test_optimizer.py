import pytest
import torch

from train.fit.optimizer import make_optimizer, set_learning_rates
from train.model.promptable import PromptableSam
from train.settings import OptimizerConfig


@pytest.fixture(scope="module")
def model() -> PromptableSam:
    return PromptableSam("tiny", 128)


def test_every_trained_parameter_is_in_one_group_with_the_right_rate_and_decay(model: PromptableSam) -> None:
    optimizer = make_optimizer(model, OptimizerConfig(lr=2e-4, vision_lr=1e-4))
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


def test_learning_rates_follow_a_cosine_to_their_final_fraction(model: PromptableSam) -> None:
    config = OptimizerConfig(lr=2e-4, vision_lr=1e-4)
    optimizer = make_optimizer(model, config)
    first = set_learning_rates(optimizer, 0, 11, config)
    middle = set_learning_rates(optimizer, 5, 11, config)
    last = set_learning_rates(optimizer, 10, 11, config)
    assert first == {"vision": pytest.approx(1e-4), "decoder": pytest.approx(2e-4)}
    assert middle["decoder"] == pytest.approx(2e-4 * 0.55)
    assert last["vision"] == pytest.approx(1e-5)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_learning_rates_rise_before_they_fall(model: PromptableSam) -> None:
    config = OptimizerConfig(lr=1.0, vision_lr=1.0, warmup_steps=3)
    optimizer = make_optimizer(model, config)
    rates = [set_learning_rates(optimizer, step, 10, config)["decoder"] for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)


def test_lower_layers_of_the_trunk_learn_slower(model: PromptableSam) -> None:
    optimizer = make_optimizer(model, OptimizerConfig(vision_lr=1.0, layer_decay=0.5))
    rates = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    trunk = "sam.image_encoder.trunk."
    assert rates[id(parameters[f"{trunk}blocks.11.attn.qkv.weight"])] == 0.5
    assert rates[id(parameters[f"{trunk}blocks.0.attn.qkv.weight"])] == 0.5**12
    assert rates[id(parameters[f"{trunk}patch_embed.proj.weight"])] == 0.5**13
    assert rates[id(parameters[f"{trunk}pos_embed"])] == 1.0
    assert rates[id(parameters["sam.image_encoder.neck.convs.0.conv.weight"])] == 1.0
