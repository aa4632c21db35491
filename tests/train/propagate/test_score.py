"""Scores of followed objects: which frames and objects count, and what the baselines get."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import StoreError
from schemas.store.store import Store, open_store
from tests.sequences import moving_mask, write_sequences
from tests.train.sequences import drifting_mask
from train.cli import app
from train.config import FitConfig
from train.fit.trainer import fit
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.propagate.davis import outline_f, region_j
from train.propagate.score import score_sequences, summarize

NOTHING = np.zeros((128, 128), bool)


def test_baselines_copy_the_first_mask_and_its_box(sequences: Store) -> None:
    scores = score_sequences(sequences, {}, "all", "mask")
    assert len(scores) == 2 * 3 * 2
    # The first sequence has no mask in frame 4; the first and the last frame never count.
    assert [score.frames for score in scores if score.model == "baseline:mask"] == [3, 3, 4, 4, 4, 4]
    for score in scores:
        seed = int(score.sequence[1:])
        numbers = [number for number in range(1, 5) if (seed, number) != (0, 4)]
        truths = [drifting_mask(number, seed) == score.track for number in numbers]
        copied = drifting_mask(0, seed) == score.track
        if score.model == "baseline:box":
            rows, columns = copied.any(1).nonzero()[0], copied.any(0).nonzero()[0]
            copied = NOTHING.copy()
            copied[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert score.j == pytest.approx(np.mean([region_j(copied, truth, NOTHING) for truth in truths]))
        assert score.f == pytest.approx(np.mean([outline_f(copied, truth, NOTHING) for truth in truths]))


def test_means_are_over_objects(sequences: Store) -> None:
    scores = score_sequences(sequences, {}, "all", "box")
    means = summarize(scores)["baseline:box"]
    boxes = [score for score in scores if score.model == "baseline:box"]
    assert means["overall"]["n"] == 6
    assert means["overall"]["j"] == pytest.approx(np.mean([score.j for score in boxes]))
    assert means["overall"]["j_and_f"] == pytest.approx(np.mean([(score.j + score.f) / 2 for score in boxes]))
    assert means["sequences"]["s1"]["f"] == pytest.approx(np.mean([s.f for s in boxes if s.sequence == "s1"]))


@pytest.mark.parametrize("kind", ["mask", "box", "centroid"])
def test_a_model_sees_the_first_prompt_alone(sequences: Store, nano: PromptableSam, kind) -> None:
    scores = score_sequences(sequences, {"model": MaskPredictor(nano, torch.device("cpu"))}, "test", kind)
    found = [score for score in scores if score.model == "model"]
    assert [(score.sequence, score.track, score.frames) for score in found] == [("s1", 1, 4), ("s1", 7, 4)]
    assert all(0 <= value <= 1 for score in found for value in (score.j, score.f))


def test_a_store_without_sequences_is_one_line(store: Store) -> None:
    with pytest.raises(StoreError, match="has no sequences"):
        score_sequences(store, {}, "all", "box")


def test_command_writes_j_and_f(sequences: Store, nano: PromptableSam, tmp_path: Path) -> None:
    torch.save({"model": nano.sam.state_dict()}, tmp_path / "nano.pt")
    named = ["--checkpoint", str(tmp_path / "nano.pt"), "--model", "nano", "--image-size", "128", "--no-zero-shot"]
    out = ["--out", str(tmp_path / "out"), "--propagate", "--prompt", "mask"]
    done = CliRunner().invoke(app, ["evaluate", sequences.path, *named, *out])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out" / "propagation.json").read_text())
    assert result["protocol"]["prompt"] == "mask"
    assert result["protocol"]["split"] == "test"
    assert set(result["models"]) == {"nano", "baseline:mask", "baseline:box"}
    assert f"{result['models']['nano']['overall']['j']:7.3f}" in done.output
    assert len((tmp_path / "out" / "propagation.csv").read_text().splitlines()) == 1 + 6
    for flags in (["--tta"], ["--prompt", "mixed"]):
        refused = CliRunner().invoke(app, ["evaluate", sequences.path, *named, *out, "--overwrite", *flags])
        assert refused.exit_code == 2


def test_objects_without_a_prompt_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = {number: moving_mask(number) for number in range(4)}
    # Object 7 appears only in the second frame.
    frames[0] = np.where(frames[0] == 7, 0, frames[0]).astype(np.uint8)
    source = write_sequences(tmp_path / "source", {"s": dict(frames)})
    config = BuildConfig.model_validate({"size_px": 128, "layout": "resize", "sequences": True})
    build_store(source, tmp_path / "s.zarr", config)
    scores = score_sequences(open_store(tmp_path / "s.zarr"), {}, "all", "mask")
    assert {score.track for score in scores} == {1}
    assert caplog.messages[-1] == "objects that appear after the prompts of their sequence are not scored: 1"


def test_windows_without_a_pixel_that_counts_are_not_scored(tmp_path: Path) -> None:
    frames = {number: moving_mask(number) for number in range(6)}
    frames[2] = frames[3] = np.full_like(frames[2], 255)
    source = write_sequences(tmp_path / "source", {"s": dict(frames)})
    config = BuildConfig.model_validate({"size_px": 128, "layout": "resize", "sequences": True})
    build_store(source, tmp_path / "s.zarr", config)
    scores = score_sequences(open_store(tmp_path / "s.zarr"), {}, "all", "mask")
    # Frames 1 and 4 count; the first and the last frame never do.
    assert {score.frames for score in scores} == {2}


def test_patients_that_a_model_was_trained_on_are_marked(sequences: Store, tmp_path: Path) -> None:
    settings = {"model": "nano", "image_size": 128, "frames": 2, "max_steps": 1, "workers": 0, "report": False}
    fit(sequences, FitConfig.model_validate({**settings, "device": "cpu", "batch_size": 1}), tmp_path / "run")
    out = ["--out", str(tmp_path / "out"), "--propagate", "--split", "train"]
    named = ["--checkpoint", f"m={tmp_path / 'run' / 'checkpoints' / 'checkpoint.pt'}"]
    done = CliRunner().invoke(app, ["evaluate", sequences.path, *named, *out])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out" / "propagation.json").read_text())
    trained = sequences.column("tiles/patient")[sequences.column("tiles/split") == "train"]
    assert result["seen_patients"]["m"]["trained"] == sorted(set(trained.tolist()))
    (row, note) = [line for line in done.output.splitlines() if "m†" in line or line.startswith("†")]
    assert row.startswith("m† ")
    assert note == f"† m was {result['seen_patients']['m']['said']}"
