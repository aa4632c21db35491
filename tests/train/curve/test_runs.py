"""The same run on more and more patients: nested patients, equal steps, scores of one split, and no run made twice."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.curve.runs import curve_runs, fit_curve, is_finished
from train.data.patients import patients_in_order
from train.data.sampler import EpochSampler
from train.fit.state import RunIdentity, start_run
from train.fit.trainer import fit
from train.model.seen_patients import SeenPatients
from train.runtime.run_log import read_steps
from train.runtime.stop import stop_on_signals
from train.score.answers import tiles_with_objects

FAST = FitConfig.model_validate(
    {
        "model": "nano",
        "image_size": 128,
        "batch_size": 12,
        "max_objects": 1,
        "epochs": 1,
        "prompt": "box",
        "workers": 0,
        "device": "cpu",
        "report": False,
        "freeze": "decoder_only",
    }
)


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


@pytest.fixture(scope="module")
def curve(store: Store, module_path: Path) -> dict[str, Any]:
    """A curve that was interrupted before its second run, and then continued."""
    (first, *_) = curve_runs(store, FAST, [1], module_path)
    fit(store, first.config, first.folder)
    found = fit_curve(store, FAST, [1], module_path, resume=True)
    assert found is not None
    return found


def test_runs_differ_only_in_their_patients(store: Store, curve: dict[str, Any], module_path: Path) -> None:
    one, every = curve["points"]
    assert one["names"] == every["names"][:1]
    assert (one["patients"], every["patients"]) == (1, len(set(every["names"])))
    patients = store.column("tiles/patient")
    for point in (one, every):
        steps = read_steps(module_path / point["run"])
        assert [len(step.tiles) for step in steps] == [12, 12, 12]
        assert set(patients[[tile for step in steps for tile in step.tiles]].tolist()) == set(point["names"])
    configs = [json.loads((module_path / point["run"] / "config.json").read_text()) for point in (one, every)]
    assert [config.pop("patients") for config in configs] == [1, every["patients"]]
    assert configs[0] == configs[1]


def test_scores_are_of_the_test_split_beside_start_and_baselines(
    store: Store, curve: dict[str, Any], module_path: Path
) -> None:
    assert curve["split"] == "test"
    assert set(curve["baselines"]) == {"baseline:box", "baseline:image", "baseline:disc"}
    assert list(curve["start"]) == ["baseline:untrained"]
    for point in curve["points"]:
        assert 0 <= point["scores"]["box"]["dice"] <= 1
        assert isinstance(point["best_is_start"], bool)
    assert 0.5 < curve["baselines"]["baseline:box"]["box"]["dice"] < 1
    assert curve["seen_patients"] == {}
    assert json.loads((module_path / "curve.json").read_text()) == curve
    assert (module_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_not_made_again(
    store: Store, curve: dict[str, Any], module_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    made: list[Path] = []

    def note(_store: Store, _config: FitConfig, out: Path, **_: object) -> dict[str, None]:
        made.append(out)
        with stop_on_signals():
            # While a run writes its report, the signal does not stop that run, but the next one must not start.
            signal.raise_signal(signal.SIGTERM)
        return {"stopped_by": None}

    monkeypatch.setattr("train.curve.runs.fit", note)
    with caplog.at_level(logging.INFO, "train.curve.runs"):
        assert fit_curve(store, FAST, [1], module_path, resume=True) == curve
    assert made == []
    assert caplog.text.count("finished before") == 2
    # With other settings, nothing counts as finished, and `fit` says what differs.
    other = FAST.model_copy(update={"seed": 1})
    assert fit_curve(store, other, [1], module_path, resume=True) is None
    longer = FAST.model_copy(update={"epochs": 2})
    assert fit_curve(store, longer, [1], module_path, resume=True) is None
    assert made == [module_path / "patients_1"] * 2


def test_a_run_that_was_stopped_before_its_first_step_or_its_report_is_not_finished(
    store: Store, curve: dict[str, Any], module_path: Path, tmp_path: Path
) -> None:
    del curve
    shutil.copytree(module_path / "patients_1", tmp_path / "patients_1")
    (run,) = [run for run in curve_runs(store, FAST, [1], tmp_path) if len(run.names) == 1]
    assert is_finished(run, store)
    path = run.folder / "summary.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "steps": 0, "epochs": 0.0, "stopped_by": "SIGINT"}))
    assert not is_finished(run, store)
    path.write_text(json.dumps(whole))
    with_report = replace(run, config=run.config.model_copy(update={"report": not run.config.report}))
    assert not is_finished(with_report, store)


@pytest.mark.parametrize("changed", ["store", "steps"])
def test_run_of_another_store_or_one_that_was_continued_and_killed_is_not_finished(
    store: Store, curve: dict[str, Any], module_path: Path, tmp_path: Path, changed: str
) -> None:
    del curve
    shutil.copytree(module_path / "patients_1", tmp_path / "patients_1")
    path = tmp_path / "patients_1" / "checkpoints" / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    if changed == "store":
        # As after `build --overwrite` with more ROIs and the same settings.
        content["origin"]["data_sha256"] = "0" * 64
    else:
        content["steps"] += 1
    torch.save(content, path)
    runs = curve_runs(store, FAST, [1], tmp_path)
    assert not is_finished(runs[0], store)


@pytest.mark.parametrize("counts", [[0], [99], [1, 7]])
def test_number_of_patients_must_be_in_the_store(store: Store, tmp_path: Path, counts: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"--curve .*: has a number of patients .*give numbers from 1 to 4"):
        curve_runs(store, FAST, counts, tmp_path)


def test_start_that_has_seen_a_test_patient_is_refused_before_the_first_run(store: Store, tmp_path: Path) -> None:
    run = start_run(FAST, RunIdentity("", 1, 1), torch.device("cpu"))
    patient = str(store.column("tiles/patient")[tiles_with_objects(store, "test")[0]])
    run.seen = SeenPatients.from_names([patient], [])
    run.state().save(tmp_path / "seen.pt")
    with pytest.raises(ConfigError) as caught:
        fit_curve(store, FAST.model_copy(update={"init": tmp_path / "seen.pt"}), [1], tmp_path / "curve")
    said = str(caught.value)
    assert re.fullmatch(
        rf"--init \S+seen.pt: was trained on 1 of the \d patients .*\({patient}\); choose another .*", said
    )
    assert "--allow-seen" not in said
    assert not (tmp_path / "curve").exists()


def test_patients_are_nested_and_follow_the_seed(store: Store, tmp_path: Path) -> None:
    tiles = tiles_with_objects(store, "train")
    orders = {tuple(patients_in_order(store, tiles, seed)) for seed in range(8)}
    assert len(orders) > 1
    runs = curve_runs(store, FAST, [3, 1, 2], tmp_path)
    assert [len(run.names) for run in runs] == [1, 2, 3, 4]
    for smaller, larger in pairwise(runs):
        assert set(smaller.names) < set(larger.names)
        assert smaller.tiles < larger.tiles
    assert runs[-1].tiles == len(tiles)


def test_epoch_with_more_images_than_tiles_goes_round_them() -> None:
    sampler = EpochSampler(np.array([3, 5, 8]), 2, seed=0, images=7)
    requests = [request for batch in sampler for request in batch]
    assert len(sampler) == 4
    assert [request.repeat for request in requests] == [0, 0, 0, 1, 1, 1, 2]
    assert sorted(request.tile_index for request in requests[:3]) == [3, 5, 8]
