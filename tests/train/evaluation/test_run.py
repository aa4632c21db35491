"""One evaluation of two runs, each beside its own start."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.evaluation.run import run_evaluation
from train.evaluation.settings import EvaluationSettings
from train.fit.state import RunIdentity, start_run
from train.output.evaluation_files import check_no_evaluation, remove_evaluation_files, remove_optional


@pytest.fixture(scope="module")
def made(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of two runs before their first step, with seeds of their own."""
    folder = tmp_path_factory.mktemp("evaluated")
    paths = [folder / f"r{seed}" / "checkpoints" / "best.pt" for seed in range(2)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        config = FitConfig(model="nano", image_size=128, seed=seed)
        start_run(config, RunIdentity("", 1, 1), torch.device("cpu")).state().save(path)
    settings = EvaluationSettings(
        store=store.path,
        checkpoints=tuple(map(str, paths)),
        baselines=("image",),
        split="test",
        prompts=("box",),
        tolerance_um=0,
        device="cpu",
    )
    run_evaluation(settings, folder / "report")
    return folder / "report"


@pytest.fixture(scope="module")
def numbers(made: Path) -> dict[str, Any]:
    return json.loads((made / "metrics.json").read_text())


def test_each_run_is_compared_with_its_own_start(numbers: dict[str, Any]) -> None:
    assert list(numbers["models"]) == [
        "r0/best",
        "r1/best",
        "baseline:untrained",
        "baseline:untrained:r1/best",
        "baseline:image",
    ]
    assert [(pair["model"], pair["minus"]) for pair in numbers["paired"]] == [
        ("r0/best", "baseline:untrained"),
        ("r0/best", "baseline:image"),
        ("r1/best", "baseline:untrained:r1/best"),
        ("r1/best", "baseline:image"),
    ]
    # No run has made a step, so each model is its start.
    starts = [pair for pair in numbers["paired"] if "untrained" in pair["minus"]]
    assert [pair["dice"] for pair in starts] == [0, 0]


def test_picture_has_the_start_of_the_first_run_beside_it(made: Path, numbers: dict[str, Any]) -> None:
    assert numbers["protocol"]["overlays_show"] == "r0/best"
    assert numbers["protocol"]["overlays_beside"] == ["baseline:untrained"]
    with Image.open(made / "overlays.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[0] % (512 + 76) == 0
    # Neither has made a step, so both pictures of a tile are equal; their captions are not.
    start, model = pixels[:, :512], pixels[:, 512:1024]
    assert np.array_equal(start[:512], model[:512])
    assert not np.array_equal(start[512 : 512 + 76], model[512 : 512 + 76])


def test_the_next_evaluation_leaves_no_file_of_the_earlier_one(store: Store, tmp_path: Path) -> None:
    asked = EvaluationSettings(store=store.path, baselines=("image",), baseline_masks=("image",), split="val")
    asked = asked.model_copy(update={"prompts": ("box",), "tolerance_um": 0, "device": "cpu"})
    # This folder already has masks that no evaluation wrote.
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "own.png").touch()
    run_evaluation(asked.model_copy(update={"save_masks": True, "stitch": True}), tmp_path)
    assert (tmp_path / "masks" / "baseline_image").is_dir()
    assert (tmp_path / "stitched" / "baseline_image").is_dir()
    run_evaluation(asked, tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock")
    assert left == ["masks", "metrics.json", "objects.csv", "overlays.png", "report.html"]
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["own.png"]


@pytest.mark.parametrize("name", ["report.html", "objects.csv", "overlays.png"])
def test_files_of_others_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "metrics.jsonl").write_text("that of a run")
    with pytest.raises(ConfigError, match=f"{name}: is in the way, and no finished evaluation wrote it"):
        check_no_evaluation(tmp_path, overwrite=False)
    check_no_evaluation(tmp_path, overwrite=True)
    remove_optional(tmp_path)
    remove_evaluation_files(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_numbers_of_an_evaluation_do_not_stay_beside_those_of_sequences(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "copy")
    with pytest.raises(ConfigError, match="belongs to an earlier evaluation"):
        check_no_evaluation(folder, overwrite=False)
    remove_evaluation_files(folder)
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == []
