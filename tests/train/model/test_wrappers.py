"""Weights of SAM 2 in the files of other programs are loaded, and other files get the remedy that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from schemas.errors import CheckpointError
from train.model.checkpoint import load_checkpoint, load_identified, load_weights
from train.model.promptable import PromptableSam


def _renamed(weights: dict[str, torch.Tensor], change: Any) -> dict[str, torch.Tensor]:
    return {change(name): weight for name, weight in weights.items()}


WRAPPERS: dict[str, Any] = {
    "bare": lambda weights: weights,
    "lightning": lambda weights: {"state_dict": _renamed(weights, "model.".__add__), "epoch": 3},
    "ddp": lambda weights: {"model": _renamed(weights, "module.".__add__)},
    "compiled": lambda weights: {"model": _renamed(weights, "_orig_mod.".__add__)},
    "both": lambda weights: {"model": _renamed(weights, "module._orig_mod.".__add__)},
    "part": lambda weights: {
        "model": _renamed(weights, lambda name: name.replace("image_encoder.", "image_encoder._orig_mod.", 1))
    },
}


def _assert_loaded(path: Path, nano: PromptableSam) -> None:
    fresh = PromptableSam("nano", 128)
    load_weights(fresh, load_checkpoint(path)["model"], path)
    for name, weight in nano.sam.state_dict().items():
        assert torch.equal(fresh.sam.state_dict()[name], weight), name


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_in_another_wrapper_are_loaded(nano: PromptableSam, tmp_path: Path, wrapper: str) -> None:
    torch.save(WRAPPERS[wrapper](nano.sam.state_dict()), tmp_path / "w.pt")
    _assert_loaded(tmp_path / "w.pt", nano)


def test_safetensors_are_loaded_and_hashed(nano: PromptableSam, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({name: weight.contiguous() for name, weight in nano.sam.state_dict().items()}, path)
    _assert_loaded(path, nano)
    assert len(load_identified(path)[1].sha256) == 64
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"w.safetensors: cannot be read \(.*; download or save it again"):
        load_checkpoint(path)


def test_weights_that_sam_2_0_lacks_keep_their_start_values(
    nano: PromptableSam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = dict(nano.sam.state_dict())
    newer = ["no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"]
    for name in newer:
        del weights[name]
    fresh = PromptableSam("nano", 128)
    before = {name: fresh.sam.state_dict()[name].clone() for name in newer}
    load_weights(fresh, weights, tmp_path / "old.pt")
    assert f"old.pt lacks {', '.join(newer)}, like all SAM 2.0 checkpoints" in caplog.text
    for name, weight in fresh.sam.state_dict().items():
        assert torch.equal(weight, before.get(name, weights.get(name, weight))), name
    # One of them alone is a damaged file.
    with pytest.raises(CheckpointError, match=r"1 missing \(no_obj_embed_spatial\); save or download it again"):
        load_weights(fresh, {**weights, **{name: before[name] for name in newer[1:]}}, tmp_path / "w.pt")


def test_other_files_get_the_remedy_that_helps(nano: PromptableSam, tmp_path: Path) -> None:
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 154\n")
    with pytest.raises(CheckpointError, match=r"lfs.pt: is a Git LFS pointer and not the weights; run `git lfs pull`"):
        load_checkpoint(tmp_path / "lfs.pt")
    torch.save(
        {"image_encoder.patch_embed.proj.weight": torch.zeros(4), "mask_decoder.x": torch.zeros(1)}, tmp_path / "1.pt"
    )
    with pytest.raises(
        CheckpointError, match=r"1.pt: holds weights of SAM 1 or of a model made from it, such as MedSAM"
    ):
        load_checkpoint(tmp_path / "1.pt")
    torch.save({"shared_image_embedding.positional_embedding": torch.zeros(2, 128)}, tmp_path / "2.pt")
    with pytest.raises(CheckpointError, match=r"2.pt: holds weights under the names of transformers"):
        load_checkpoint(tmp_path / "2.pt")
    with pytest.raises(
        CheckpointError,
        match=r"1 unexpected \(ema_steps\); remove the unexpected weights",
    ):
        load_weights(nano, {**nano.sam.state_dict(), "ema_steps": torch.zeros(1)}, tmp_path / "w.pt")
