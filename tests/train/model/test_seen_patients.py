"""No model is scored on patients that it was trained or chosen on without a word."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import CheckpointError, ConfigError
from schemas.manifest import Split
from schemas.store.store import Store, open_store
from train.cli import app
from train.config import read_config
from train.fit.trainer import fit
from train.model.checkpoint import load_checkpoint
from train.model.loading import load_mask_predictor, load_predictors
from train.model.predictor import MaskPredictor
from train.model.seen_patients import digest_of, seen_patients
from train.score.evaluate import evaluate
from train.score.protocol import ScoringProtocol

SETTINGS = {
    "model": "nano",
    "image_size": 128,
    "batch_size": 2,
    "max_steps": 1,
    "workers": 0,
    "device": "cpu",
    "report": False,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


@pytest.fixture(scope="module")
def patients(store: Store) -> dict[str, set[str]]:
    """The patients of each split."""
    columns = zip(store.column("tiles/split").tolist(), store.column("tiles/patient").tolist(), strict=True)
    found: dict[str, set[str]] = {}
    for split, patient in columns:
        found.setdefault(split, set()).add(patient)
    return found


@pytest.fixture(scope="module")
def run(store: Store, module_path: Path) -> Path:
    fit(store, read_config(None, SETTINGS), module_path / "run")
    return module_path / "run" / "checkpoints" / "checkpoint.pt"


@pytest.fixture(scope="module")
def turned(sample_source: Path, patients: dict[str, set[str]], module_path: Path) -> Store:
    """A store of the same ROIs whose test patients were those of training, and the other way round."""
    names: dict[str, Split] = {"train": "test", "val": "val", "test": "train"}
    splits: dict[str, Split] = {patient: names[split] for split, members in patients.items() for patient in members}
    build_store(sample_source, module_path / "turned.zarr", BuildConfig(size_px=128), splitter=lambda rois: splits)
    return open_store(module_path / "turned.zarr")


def test_checkpoint_holds_digests_and_no_names(run: Path, patients: dict[str, set[str]]) -> None:
    recorded = load_checkpoint(run)["patients"]
    assert recorded == {
        "trained": sorted(digest_of(name) for name in patients["train"]),
        "validated": sorted(digest_of(name) for name in patients["val"]),
    }
    assert not any(name in json.dumps(recorded) for members in patients.values() for name in members)


def test_unseen_test_patients_are_scored_without_a_mark(store: Store, run: Path) -> None:
    result = evaluate(store, {"m": load_mask_predictor(run, CPU)}, ScoringProtocol("test", ("box",))).result
    assert result["seen_patients"] == {}


def test_test_split_with_training_patients_is_refused(turned: Store, run: Path, patients: dict[str, set[str]]) -> None:
    predictor = load_mask_predictor(run, CPU)
    count = len(patients["train"])
    with pytest.raises(ConfigError, match=rf"{run}: was trained on {count} of the {count} patients .*--allow-seen"):
        evaluate(turned, {"m": predictor}, ScoringProtocol("test", ("box",)))
    allowed = evaluate(turned, {"m": predictor}, ScoringProtocol("test", ("box",), allow_seen=True)).result
    assert allowed["seen_patients"]["m"]["trained"] == sorted(patients["train"])


def test_patients_of_the_start_count_too(store: Store, turned: Store, run: Path, tmp_path: Path) -> None:
    # The second run is trained on what was the test split of the first. Nobody is unseen but the patient of neither.
    fit(turned, read_config(None, {**SETTINGS, "init": str(run)}), tmp_path)
    chained = tmp_path / "checkpoints" / "checkpoint.pt"
    for scored in (store, turned):
        with pytest.raises(ConfigError, match="was trained on"):
            evaluate(scored, {"m": load_mask_predictor(chained, CPU)}, ScoringProtocol("test", ("box",)))
    fit(turned, read_config(None, {**SETTINGS, "max_steps": 2}), tmp_path, resume=True)
    assert len(load_checkpoint(chained)["patients"]["trained"]) == len(
        {*store.column("tiles/patient").tolist()} - {*_patients_of(store, "val")}
    )


def _patients_of(store: Store, split: str) -> set[str]:
    return set(store.column("tiles/patient")[store.column("tiles/split") == split].tolist())


def test_splits_of_training_are_marked_and_not_refused(store: Store, run: Path, tmp_path: Path) -> None:
    command = ["evaluate", store.path, "--checkpoint", str(run), "--prompt", "box", "--device", "cpu", "--no-zero-shot"]
    for split, said in (("val", "was chosen on 1 of the 1 patients"), ("train", "was trained on 4 of the 4 patients")):
        ran = CliRunner().invoke(app, [*command, "--split", split, "--out", str(tmp_path / split)])
        assert ran.exit_code == 0, ran.output
        (line,) = [line for line in ran.output.splitlines() if line.startswith("†")]
        assert said in line
        assert sum("checkpoint" in line and "†" in line and "box" in line for line in ran.output.splitlines()) == 1
        page = (tmp_path / split / "report.html").read_text()
        assert f"† run/checkpoint {said}" in page
        assert page.count("†</td>") + page.count("† <span") >= 3


def test_models_of_unknown_history_are_not_refused(turned: Store, run: Path) -> None:
    predictor = load_mask_predictor(run, CPU)
    unknown = MaskPredictor(predictor.model, CPU, predictor.weights, seen_patients({}, run))
    assert evaluate(turned, {"m": unknown}, ScoringProtocol("test", ("box",))).result["seen_patients"] == {}


@pytest.mark.parametrize("record", [[1], {"trained": ["a"]}, {"trained": [1], "validated": []}, "none"])
def test_a_damaged_record_of_patients_is_an_error(record: object, run: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged record of its patients"):
        seen_patients({"patients": record}, run)


def test_our_own_checkpoint_without_a_record_is_named(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = load_checkpoint(run)
    del content["patients"]
    torch.save(content, tmp_path / "old.pt")
    load_mask_predictor(tmp_path / "old.pt", CPU)
    # A prediction scores nothing.
    assert not caplog.records
    load_predictors([tmp_path / "old.pt"], CPU)
    assert "does not record its patients" in caplog.text
    caplog.clear()
    load_mask_predictor(run, CPU)
    assert "patients" not in caplog.text
