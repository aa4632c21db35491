from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.backbone.catalog import ModelSize
from train.backbone.sam2 import SAM2
from train.config import FitConfig
from train.data.collate import Batch
from train.data.point_groups import group_by_points
from train.data.training_clicks import correction_clicks
from train.fit.forward import TrainingForward
from train.fit.state import RunIdentity, start_run
from train.loss.batch_loss import batch_loss
from train.loss.pixel_terms import upsample
from train.model.acceleration import recompute_activations
from train.model.checkpoint import load_checkpoint, load_weights
from train.model.promptable import PromptableSam
from train.settings import LossConfig


def _by_object(model: PromptableSam, batch: Batch) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for prediction in TrainingForward(model)(batch):
            found.update(zip(prediction.objects.tolist(), prediction.passes[0].logits, strict=True))
    return found


def test_padding_points_do_not_change_masks(tiny: PromptableSam, mixed_batch: Batch) -> None:
    padded = replace(
        mixed_batch,
        point_coords=torch.nn.functional.pad(mixed_batch.point_coords, (0, 0, 0, 5)),
        point_labels=torch.nn.functional.pad(mixed_batch.point_labels, (0, 5), value=-1),
    )
    padded = replace(padded, groups=group_by_points(padded.point_labels[0]))
    plain, other = _by_object(tiny, mixed_batch), _by_object(tiny, padded)
    assert plain.keys() == other.keys() == set(range(mixed_batch.num_objects))
    for row, logits in plain.items():
        torch.testing.assert_close(other[row], logits, rtol=0, atol=1e-5)


def test_one_real_point_gives_three_masks_and_several_give_one(tiny: PromptableSam, mixed_batch: Batch) -> None:
    counts = (mixed_batch.point_labels[0] >= 0).sum(-1)
    for row, logits in _by_object(tiny, mixed_batch).items():
        assert logits.shape == (3 if counts[row] <= 1 else 1, 32, 32)


def test_object_does_not_depend_on_other_objects_of_the_batch(tiny: PromptableSam, mixed_batch: Batch) -> None:
    alone = replace(mixed_batch, groups=group_by_points(mixed_batch.point_labels[0])[:1])
    together = _by_object(tiny, mixed_batch)
    for row, logits in _by_object(tiny, alone).items():
        torch.testing.assert_close(together[row], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"corrections": 1}, {"loss": {"predict_presence": False}}])
def test_every_trained_parameter_gets_a_gradient(mixed_batch: Batch, settings: dict[str, object]) -> None:
    config = FitConfig.model_validate({"image_size": 128, **settings})
    model = start_run(config, RunIdentity("", 1, 1), torch.device("cpu")).model
    draws = torch.rand(1, mixed_batch.num_objects, 2)
    predictions = TrainingForward(model, config.corrections)(replace(mixed_batch, click_draws=draws))
    batch_loss(predictions, mixed_batch, config.loss, 5.0).total.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    stray = [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None]
    assert stray == []


def test_frozen_modules_keep_evaluation_mode_and_get_no_gradient(mixed_batch: Batch) -> None:
    model = PromptableSam("tiny", 128)
    model.freeze(("image_encoder",))
    model.train()
    assert not model.sam.image_encoder.training
    assert model.sam.sam_mask_decoder.training
    batch_loss(TrainingForward(model)(mixed_batch), mixed_batch, LossConfig(), 5.0).total.backward()
    assert all(parameter.grad is None for parameter in model.sam.image_encoder.parameters())
    assert model.sam.sam_mask_decoder.conv_s0.weight.grad is not None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("encoder",), "--freeze encoder: names no module"),
        (("image_encoder", "sam_prompt_encoder", "sam_mask_decoder"), "leaves nothing|nothing"),
    ],
)
def test_impossible_freezes_are_refused(names: tuple[str, ...], message: str) -> None:
    model = PromptableSam("tiny", 128)
    with pytest.raises(ConfigError, match=message):
        model.freeze(names)


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_network_is_the_one_that_meta_builds(size: ModelSize) -> None:
    network = SAM2.networks[size]
    built: list[SAM2Base] = []
    # The second one comes from the configuration of the first.
    for _ in range(2):
        torch.manual_seed(0)
        built.append(PromptableSam(size, 128).sam)
    torch.manual_seed(0)
    overrides = ["++model.image_size=128", *network.overrides]
    theirs = build_sam2(network.config_file, device="cpu", hydra_overrides_extra=overrides, apply_postprocessing=False)
    assert built[0].image_encoder is not built[1].image_encoder
    for own in built:
        assert str(own) == str(theirs)
        assert own.training == theirs.training
        for name, weight in theirs.state_dict().items():
            assert torch.equal(own.state_dict()[name], weight), name


def _predictor(model: PromptableSam, tmp_path: Path) -> SAM2ImagePredictor:
    torch.save({"model": model.sam.state_dict()}, tmp_path / "w.pt")
    return _metas_predictor(model, SAM2.networks[model.size].config_file, tmp_path / "w.pt")


def _metas_predictor(model: PromptableSam, config_file: str, weights: Path | None) -> SAM2ImagePredictor:
    overrides = [f"++model.image_size={model.image_size}"]
    sam = build_sam2(
        config_file,
        None if weights is None else str(weights),
        device="cpu",
        hydra_overrides_extra=overrides,
        apply_postprocessing=False,
    )
    predictor = SAM2ImagePredictor(sam)
    # The predictor's own feature sizes are for a 1024 px input.
    sizes = [(model.image_size // step, model.image_size // step) for step in (4, 8, 16)]
    predictor._bb_feat_sizes = sizes  # pyright: ignore[reportPrivateUsage]
    return predictor


def _assert_same_masks(model: PromptableSam, predictor: SAM2ImagePredictor, store: Store, kind: PromptKind) -> None:
    overlaps = []
    for index in range(4):
        record = store[index]
        predictor.set_image(record.image)
        with torch.no_grad():
            features = model.encode(torch.from_numpy(record.image).permute(2, 0, 1)[None])
        for prompt in store.prompts(index, kind).values():
            coords, labels = prompt["point_coords"], prompt["point_labels"]
            with torch.no_grad():
                ours = model.decode(features, torch.from_numpy(coords)[None], torch.from_numpy(labels)[None])
            theirs, ious, _ = predictor.predict(
                point_coords=coords,
                point_labels=labels,
                multimask_output=len(labels) == 1,
                return_logits=True,
            )
            logits = upsample(ours.logits, *record.image.shape[:2])[0].numpy()
            np.testing.assert_allclose(ours.ious[0].numpy(), ious, atol=1e-4)
            np.testing.assert_allclose(logits, theirs, atol=1e-3 * np.abs(theirs).max())
            union = np.count_nonzero((logits > 0) | (theirs > 0))
            overlaps.append(np.count_nonzero((logits > 0) & (theirs > 0)) / union if union else 1.0)
    assert np.mean(overlaps) >= 0.99
    assert len(overlaps) >= 8


@pytest.mark.parametrize("kind", ["centroid", "multi_point", "box"])
def test_masks_equal_those_of_metas_image_predictor(tiny: PromptableSam, store: Store, tmp_path: Path, kind) -> None:
    _assert_same_masks(tiny, _predictor(tiny, tmp_path), store, kind)


@pytest.mark.parametrize("kind", ["centroid", "box"])
def test_sam_2_0_weights_give_the_masks_of_the_published_sam_2_0(store: Store, tmp_path: Path, kind) -> None:
    torch.manual_seed(0)
    model = PromptableSam("tiny", 128).eval()
    published = _metas_predictor(model, "configs/sam2/sam2_hiera_t.yaml", None)
    torch.save({"model": published.model.state_dict()}, tmp_path / "sam2_hiera_tiny.pt")
    load_weights(model, load_checkpoint(tmp_path / "sam2_hiera_tiny.pt")["model"], tmp_path / "sam2_hiera_tiny.pt")
    _assert_same_masks(model, published, store, kind)


def test_corrections_add_a_click_and_a_pass_and_train_the_mask_prompt(mixed_batch: Batch) -> None:
    torch.manual_seed(0)
    model = PromptableSam("tiny", 128, mask_prompts=True).train()
    batch = replace(mixed_batch, click_draws=torch.rand(1, mixed_batch.num_objects, 4))
    predictions = TrainingForward(model, 2)(batch)
    assert all(len(prediction.passes) == 3 for prediction in predictions)
    assert all(prediction.passes[1].logits.shape[1] == 1 for prediction in predictions)
    batch_loss(predictions, batch, LossConfig(), 5.0).total.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    weight = model.sam.sam_prompt_encoder.mask_downscaling[0].weight
    assert isinstance(weight, torch.nn.Parameter)
    assert weight.grad is not None
    assert weight.grad.any()


def test_each_object_gets_the_mask_of_the_pass_before_or_none(nano: PromptableSam, mixed_batch: Batch) -> None:
    """With a share of 0.5, a pass equals that of a share of 1 or of 0, as the object's draw says."""
    objects = mixed_batch.num_objects
    draws = torch.rand(1, objects, 3, generator=torch.Generator().manual_seed(1))
    draws[0, :, 2] = torch.arange(objects) / objects
    batch = replace(mixed_batch, click_draws=draws)
    nano.train()
    with torch.no_grad():
        never, half, always = (TrainingForward(nano, 1, share)(batch) for share in (0.0, 0.5, 1.0))
    nano.eval()
    checked = set[bool]()
    for group, (without, mixed, with_mask) in enumerate(zip(never, half, always, strict=True)):
        for row, number in enumerate(batch.groups[group].objects.tolist()):
            has_mask = bool(draws[0, number, 2] < 0.5)
            expected, other = (with_mask, without) if has_mask else (without, with_mask)
            found = mixed.passes[1].logits[row]
            torch.testing.assert_close(found, expected.passes[1].logits[row], rtol=1e-4, atol=1e-5)
            assert not torch.allclose(found, other.passes[1].logits[row], rtol=1e-4, atol=1e-5)
            checked.add(has_mask)
    assert checked == {True, False}


def test_preset_freezes_all_but_the_decoder() -> None:
    model = PromptableSam("tiny", 128)
    model.freeze(SAM2.freeze_presets["decoder_only"])
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"sam_mask_decoder"}


def _loss_and_gradients(model: PromptableSam, batch: Batch) -> tuple[float, dict[str, torch.Tensor], int]:
    """Return the loss, the gradients and the bytes kept for the backward pass, without those of parameters."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = batch_loss(TrainingForward(model)(batch), batch, LossConfig(), 5.0).total
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, sum(kept.values())


def test_recomputed_activations_give_the_same_gradients_with_less_memory(mixed_batch: Batch) -> None:
    torch.manual_seed(0)
    model = PromptableSam("tiny", 128)
    plain, gradients, kept = _loss_and_gradients(model, mixed_batch)
    recompute_activations(model.sam)
    again, same, kept_now = _loss_and_gradients(model, mixed_batch)
    assert again == plain
    assert same.keys() == gradients.keys()
    assert all(torch.equal(same[name], gradients[name]) for name in gradients)
    assert kept_now < 0.6 * kept


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # from torch, while it traces
def test_compiled_parts_give_the_same_loss_and_gradients(mixed_batch: Batch) -> None:
    torch.manual_seed(0)
    model = PromptableSam("tiny", 128)
    plain, gradients, _ = _loss_and_gradients(model, mixed_batch)
    names = list(model.state_dict())
    model.compile_parts()
    again, same, _ = _loss_and_gradients(model, mixed_batch)
    assert list(model.state_dict()) == names
    assert again == pytest.approx(plain, rel=1e-4)
    for name, wanted in gradients.items():
        assert (same[name] - wanted).norm() <= 1e-3 * wanted.norm() + 1e-6, name


def test_correction_uses_the_best_mask_and_its_own_draws_and_pixels(
    mixed_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []

    def noted(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(given)
        return correction_clicks(*given)

    monkeypatch.setattr("train.fit.forward.correction_clicks", noted)
    ignore = torch.zeros_like(mixed_batch.ignore)
    for number in range(ignore.shape[1]):
        ignore[0, number, : 8 * (number + 1)] = True
    draws = torch.rand(1, mixed_batch.num_objects, 4)
    model = PromptableSam("tiny", 128, mask_prompts=True).train()
    predictions = TrainingForward(model, 2)(replace(mixed_batch, ignore=ignore, click_draws=draws))
    assert len(seen) == 2 * len(predictions)
    for place, prediction in enumerate(predictions):
        objects = prediction.objects
        for number in range(2):
            shown, targets, valid, own = seen[2 * place + number]
            before = prediction.passes[number]
            best = before.logits[torch.arange(len(objects)), before.ious.argmax(1)]
            torch.testing.assert_close(shown[:, 0], upsample(best[:, None], 128, 128)[:, 0])
            assert torch.equal(targets, mixed_batch.masks[0, objects])
            assert torch.equal(valid, ~ignore[0, mixed_batch.object_to_image[0, objects, 1]])
            assert torch.equal(own, draws[0, objects, 2 * number : 2 * number + 2])
