"""Runs of older versions go on by the rules of their version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from train.config import FitConfig
from train.fit.resume import restore_run
from train.fit.state import Run, RunIdentity, start_run
from train.model.checkpoint import load_checkpoint

CPU = torch.device("cpu")
CONFIG = {"model": "nano", "image_size": 128, "optimizer": {"ema_decay": 0.9}}


def _begun() -> Run:
    return start_run(FitConfig.model_validate(CONFIG), RunIdentity("", 1, 1), CPU)


def _resumed(path: Path, content: dict[str, Any]) -> Run:
    torch.save(content, path)
    run = _begun()
    restore_run(run, path)
    return run


def test_best_score_of_an_older_run_stays_a_mean_over_objects(tmp_path: Path) -> None:
    run = replace(_begun(), best_score=0.6, steps=1)
    run.state().save(tmp_path / "new.pt")
    content = load_checkpoint(tmp_path / "new.pt")
    assert content["best_meter_values"] == {"dice_class_mean": 0.6}
    again = _resumed(tmp_path / "again.pt", content)
    assert (again.best_score, again.best_by_objects) == (0.6, False)
    older = _resumed(tmp_path / "older.pt", {**content, "best_meter_values": {"dice": 0.7}})
    assert (older.best_score, older.best_by_objects) == (0.7, True)
    assert older.state().best_meter_values == {"dice": 0.7}


@pytest.mark.parametrize("warms_up", [True, False])
def test_average_of_an_older_run_has_no_warm_up(tmp_path: Path, warms_up: bool) -> None:
    run = replace(_begun(), steps=2)
    run.state().save(tmp_path / "new.pt")
    content = load_checkpoint(tmp_path / "new.pt")
    assert content["ema_warms_up"]
    if not warms_up:
        del content["ema_warms_up"]
    resumed = _resumed(tmp_path / "resumed.pt", content)
    assert resumed.ema is not None
    name = "sam_mask_decoder.conv_s0.weight"
    with torch.no_grad():
        resumed.model.sam.get_parameter(name).add_(1.0)
    before = resumed.averaged_model.sam.get_parameter(name).clone()
    resumed.ema.update_parameters(resumed.model)
    moved = (resumed.averaged_model.sam.get_parameter(name) - before).mean()
    # After two steps the decay is 3/12 with a warm-up.
    assert moved.item() == pytest.approx(0.75 if warms_up else 0.1, abs=1e-5)
    assert resumed.state().ema_warms_up is warms_up
