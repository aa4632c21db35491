"""`bcss-train export`: Meta's code, transformers and our predictor give the same masks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

from schemas.errors import CheckpointError, ConfigError
from schemas.store.store import Store
from tests.folders import bytes_of
from train.backbone.catalog import MODEL_SIZES, ModelSize
from train.backbone.nano_start import NANO_START
from train.backbone.sam2 import NANO_OVERRIDES
from train.choices import ExportFormat
from train.cli import main
from train.export.export import export_checkpoint
from train.export.model_card import model_card
from train.export.transformers_config import network_config
from train.export.transformers_weights import transformers_weights
from train.model.checkpoint import WeightsFile, load_checkpoint
from train.model.loading import load_mask_predictor
from train.model.predictor import MaskPredictor
from train.model.promptable import CHANNEL_MEAN, CHANNEL_STD, PromptableSam
from train.model.seen_patients import SeenPatients, seen_patients
from train.model.trained_on import TrainedOn

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIDE = 256


@pytest.fixture(scope="module")
def model() -> PromptableSam:
    """`nano` with random weights, whose masks cover part of the image."""
    torch.manual_seed(3)
    return PromptableSam("nano", SIDE).eval()


@pytest.fixture(scope="module")
def checkpoint(model: PromptableSam, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a checkpoint of `fit`."""
    path = tmp_path_factory.mktemp("run_a") / "checkpoints" / "best.pt"
    path.parent.mkdir()
    known = TrainedOn.of(store.manifest, "box").content()
    content = {"model": model.sam.state_dict(), "model_size": "nano", "image_size": SIDE, "trained_on": known}
    scores = {"overall": {"dice": 0.5, "n": 7, "patients": 2, "class_mean": {"dice": {"value": 0.4, "ci95": None}}}}
    torch.save({**content, "val": {"box": scores}, "steps": 12}, path)
    return path


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for transformers."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("export") / "hf", "transformers")


def _prompts() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Twenty boxes (20, 4) and clicks (20, 2) in pixels."""
    draw = np.random.default_rng(5)
    corners = np.sort(draw.uniform(4, SIDE - 4, (20, 2, 2)), axis=1)
    return corners.reshape(20, 4).astype(np.float32), draw.uniform(0, SIDE, (20, 2)).astype(np.float32)


def _ours(model: PromptableSam, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> torch.Tensor:
    predictor = MaskPredictor(model, torch.device("cpu"))
    coords = torch.from_numpy(boxes).reshape(-1, 2, 2)
    labels = torch.tensor([[2, 3]] * len(boxes), dtype=torch.int32)
    return predictor.predict(predictor.views(image), coords, labels).logits


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    both = (first & second).sum((1, 2))
    return (both + 1e-9) / ((first | second).sum((1, 2)) + 1e-9)


def test_three_programs_give_the_same_masks(
    model: PromptableSam, folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    boxes, clicks = _prompts()
    ours = _ours(model, image, boxes)
    theirs = transformers.Sam2Model.from_pretrained(folder).eval()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    pixels = (pixels - torch.tensor(CHANNEL_MEAN).view(3, 1, 1)) / torch.tensor(CHANNEL_STD).view(3, 1, 1)
    with torch.inference_mode():
        found = theirs(pixel_values=pixels, input_boxes=torch.from_numpy(boxes)[None], multimask_output=False)
        of_clicks = theirs(pixel_values=pixels, input_points=torch.from_numpy(clicks)[None, :, None])
    np.testing.assert_allclose(found.pred_masks[0, :, 0], ours, atol=2e-4)
    predictor = MaskPredictor(model, torch.device("cpu"))
    ones = torch.ones(20, 1, dtype=torch.int32)
    candidates, ious = predictor.candidates(predictor.views(image), torch.from_numpy(clicks)[:, None], ones, SIDE)
    np.testing.assert_allclose(of_clicks.pred_masks[0], candidates, atol=2e-4)
    np.testing.assert_allclose(of_clicks.iou_scores[0], ious, atol=1e-4)

    weights = export_checkpoint(checkpoint, tmp_path / "w.pt", "weights")
    options = [*NANO_OVERRIDES, f"++model.image_size={SIDE}"]
    built = build_sam2(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        str(weights),
        "cpu",
        hydra_overrides_extra=options,
        apply_postprocessing=False,
    )
    meta = SAM2ImagePredictor(built)
    # The predictor's own feature sizes are for a 1024 px input.
    meta._bb_feat_sizes = [(SIDE // step, SIDE // step) for step in (4, 8, 16)]  # pyright: ignore[reportPrivateUsage]
    meta.set_image(image)
    masks = [meta.predict(box=box, multimask_output=False, return_logits=True)[2][0] for box in boxes]
    np.testing.assert_allclose(np.stack(masks), ours.clamp(-32, 32), atol=2e-4)


def test_each_programs_own_resize_gives_nearly_the_same_masks(model: PromptableSam, folder: Path) -> None:
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0)), (300, 400), mode="bicubic"
    )
    image = (smooth[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()
    boxes, _ = _prompts()
    predictor = MaskPredictor(model, torch.device("cpu"))
    labels = torch.tensor([[2, 3]] * 20, dtype=torch.int32)
    ours = predictor.predict(predictor.views(image), torch.from_numpy(boxes).reshape(-1, 2, 2), labels).masks()
    theirs = transformers.Sam2Model.from_pretrained(folder).eval()
    processor = transformers.Sam2Processor.from_pretrained(folder)
    inputs = processor(images=image, input_boxes=[boxes.tolist()], return_tensors="pt")
    with torch.inference_mode():
        outputs = theirs(**inputs, multimask_output=False)
    masks = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()
    assert masks.shape == ours.shape == (20, 300, 400)
    assert 0.02 < ours.mean() < 0.98
    assert _iou(ours, masks).mean() >= 0.99


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_each_network_has_the_names_and_shapes_of_transformers(size: ModelSize) -> None:
    model = PromptableSam(size, 128)
    config = transformers.Sam2Config.from_dict(network_config(model))
    with torch.device("meta"):
        theirs = transformers.Sam2Model(config)
    own = transformers_weights(dict(model.sam.state_dict()))
    assert {name: tensor.shape for name, tensor in own.items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }


def test_weights_are_those_of_the_checkpoint(model: PromptableSam, checkpoint: Path, tmp_path: Path) -> None:
    own = model.sam.state_dict()
    saved = torch.load(export_checkpoint(checkpoint, tmp_path / "w.pt", "weights"), weights_only=True)
    assert set(saved) == {"model", "model_size", "image_size"}
    stored = load_file(export_checkpoint(checkpoint, tmp_path / "w.safetensors", "safetensors"))
    for found in (saved["model"], stored):
        assert found.keys() == own.keys()
        assert all(torch.equal(found[name], own[name]) for name in own)


def test_safetensors_file_knows_what_the_checkpoint_knows(checkpoint: Path, tmp_path: Path) -> None:
    out = export_checkpoint(checkpoint, tmp_path / "w.safetensors", "safetensors")
    again, first = (load_mask_predictor(path, torch.device("cpu")) for path in (out, checkpoint))
    assert (again.model.size, again.model.image_size) == ("nano", SIDE)
    assert again.trained_on == first.trained_on
    assert again.trained_on is not None
    official = tmp_path / "official.safetensors"
    weights = load_file(out)
    save_file(weights, official, metadata={"format": "pt", "image_size": "7"})
    assert load_mask_predictor(official, torch.device("cpu"), image_size=128).model.image_size == 128
    for metadata, message in (
        ("[1", "cannot be read"),
        ("7", "cannot be read"),
        ('{"image_size": 7}', "has an invalid"),
    ):
        save_file(weights, official, metadata={"bcss_sam2": metadata})
        with pytest.raises(CheckpointError, match=message):
            load_mask_predictor(official, torch.device("cpu"))


def test_card_says_what_the_model_was_trained_on(folder: Path, store: Store) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "license: apache-2.0" in card
    for info in store.manifest.classes:
        assert info.name in card
    assert "| this model | box | 0.400 | - | 7 | 2 |" in card
    assert "On the val split, which chose these weights." in card
    assert re.search(r"weights \| sha256 `[0-9a-f]{64}`", card)
    assert "{{" not in card


def test_card_is_named_after_the_run_from_any_folder(
    model: PromptableSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "our_run" / "evaluation").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "our_run" / "evaluation")
    weights = WeightsFile("best.pt", "5a" * 32)
    card = model_card(Path("../checkpoints/best.pt"), {}, model, weights, None, "hub")
    assert "\n# our_run\n" in card


def test_what_cannot_be_exported_is_one_line(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").write_text("kept")
    with pytest.raises(ConfigError, match="already exists"):
        export_checkpoint(checkpoint, tmp_path / "there", "weights")
    assert (tmp_path / "there").read_text() == "kept"
    (tmp_path / "file").write_text("")
    # A reader knows the format by the suffix.
    with pytest.raises(ConfigError, match=r"name a file that ends in \.safetensors"):
        export_checkpoint(checkpoint, tmp_path / "w.pt", "safetensors")
    with pytest.raises(ConfigError, match=r"name a file that ends in \.pt"):
        export_checkpoint(checkpoint, tmp_path / "w.safetensors", "weights")
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_checkpoint(checkpoint, tmp_path / "file" / "w.pt", "weights")
    with pytest.raises(ConfigError, match="is not the result of an evaluation"):
        export_checkpoint(checkpoint, tmp_path / "hf", "transformers", evaluation=tmp_path)
    assert not (tmp_path / "hf").exists()
    with pytest.raises(ConfigError, match="--image-size 512: matches no given checkpoint; they have 256"):
        export_checkpoint(checkpoint, tmp_path / "other.pt", "weights", image_size=512)
    monkeypatch.setattr(sys, "argv", ["bcss-train", "export", str(checkpoint), "--to", "onnx", "--out", "x"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2


def test_full_disk_leaves_the_earlier_export(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = export_checkpoint(checkpoint, tmp_path / "hf", "transformers")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.export.export.write_json", full)
    with pytest.raises(CheckpointError, match="No space left"):
        export_checkpoint(checkpoint, out, "transformers", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_only_an_earlier_export_is_replaced(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    def refused(out: Path, target: ExportFormat, message: str) -> None:
        before = bytes_of(tmp_path)
        with pytest.raises(ConfigError, match=message):
            export_checkpoint(checkpoint, out, target, overwrite=True)
        assert bytes_of(tmp_path) == before
        assert checkpoint.is_file()

    (tmp_path / "hub" / ".git").mkdir(parents=True)
    (tmp_path / "hub" / ".git" / "HEAD").write_text("mine")
    (tmp_path / "file").write_text("mine")
    refused(checkpoint.parent, "weights", "is a folder; name a file with --out")
    refused(tmp_path / "hub", "weights", "is a folder")
    refused(tmp_path / "hub", "transformers", "holds other files than an export, such as .git")
    refused(tmp_path / "file", "transformers", "is a file; name a folder with --out")
    refused(checkpoint, "weights", "is the checkpoint itself")
    copy = Path(shutil.copytree(folder, tmp_path / "again" / folder.name))
    (copy / "config.json").write_text("old")
    export_checkpoint(checkpoint, copy, "transformers", overwrite=True)
    assert bytes_of(copy) == bytes_of(folder)


def test_the_folder_may_be_the_current_one(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf").mkdir()
    monkeypatch.chdir(tmp_path / "hf")
    export_checkpoint(checkpoint, Path(), "transformers", overwrite=True)
    assert (tmp_path / "hf" / "model.safetensors").is_file()


def test_card_tells_drawn_patients_and_unfair_baselines(model: PromptableSam, tmp_path: Path) -> None:
    start = seen_patients(load_checkpoint(NANO_START), NANO_START)
    assert start is not None
    seen = start.joined(SeenPatients.from_names(["anna", "bert"], ["dora"]))
    means = {"overall": {"dice": 0.5, "n": 7, "patients": 2}}
    result = {
        "protocol": {"split": "test", "weights": {"m": {"sha256": "5a" * 32}}},
        "models": {"m": {"centroid": means}, "baseline:box": {"box": means, "centroid": means}},
        "oracles": {"baseline:box": ["centroid"]},
        "seen_patients": {},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(result))
    content = {"patients": seen.content(), "trained_on": load_checkpoint(NANO_START)["trained_on"]}
    card = model_card(Path("m.pt"), content, model, WeightsFile("m.pt", "5a" * 32), tmp_path, "hub")
    drawn = len(start.trained)
    assert f"start included | {drawn + 2} ({drawn} of them are drawn, those of `nano`) |" in card
    assert "| baseline:box | box | 0.500 | - | 7 | 2 |" in card
    assert "| baseline:box | centroid | 0.500‡ | - | 7 | 2 |" in card
    assert "\n‡ sees more of the truth than this prompt gives.\n" in card


def test_card_of_the_last_step_does_not_say_that_its_scores_chose_it(model: PromptableSam) -> None:
    content = {"val": {"box": {"overall": {"dice": 0.4, "n": 7, "patients": 2}}}}
    weights = WeightsFile("w.pt", "5a" * 32)
    chosen = model_card(Path("w.pt"), content, model, weights, None, "hub")
    last = model_card(Path("w.pt"), {**content, "optimizer": {}}, model, weights, None, "hub")
    assert "On the val split, which chose these weights." in chosen
    assert "On the val split. " in last
