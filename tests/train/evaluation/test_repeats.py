from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train.evaluation.repeats import repeated_runs, runs_of
from train.model.names import NamedCheckpoint


def _saved(
    folder: Path, name: str, config: dict[str, Any] | None, data: str = "d", file: str = "best"
) -> NamedCheckpoint:
    path = folder / name / f"{file}.pt"
    path.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {"model": {"w": torch.zeros(1)}}
    if config is not None:
        content |= {"config": config, "origin": {"data_sha256": data}}
    torch.save(content, path)
    return NamedCheckpoint(f"{name}/{file}", path)


def _scores(dice: float) -> dict[str, Any]:
    return {"box": {"overall": {"class_mean": {"dice": {"value": dice}}}}}


def test_runs_that_differ_in_seed_or_fold_are_one_group(tmp_path: Path) -> None:
    dice = {"a": 0.5, "b": 0.6, "fold": 0.9, "again": 0.1, "other": 0.2, "last": 0.3, "official": 0.4}
    saved = [
        _saved(tmp_path, "a", {"lr": 1, "seed": 0}),
        _saved(tmp_path, "b", {"lr": 1, "seed": 1, "workers": 4}),
        _saved(tmp_path, "fold", {"lr": 1, "seed": 0}, data="e"),
        # The same seed and data as the first, so it does not count as another run.
        _saved(tmp_path, "again", {"lr": 1, "seed": 0}),
        _saved(tmp_path, "other", {"lr": 2, "seed": 3}),
        _saved(tmp_path, "last", {"lr": 1, "seed": 4}, file="checkpoint"),
        _saved(tmp_path, "official", None),
    ]
    models = {item.name: _scores(dice[item.name.split("/")[0]]) for item in saved}
    (group,) = repeated_runs(runs_of(saved), models)
    assert group["models"] == ["a/best", "b/best", "fold/best"]
    expected = {"mean": 2 / 3, "sd": float(np.std([0.5, 0.6, 0.9], ddof=1)), "lowest": 0.5, "highest": 0.9}
    assert group["prompts"]["box"] == pytest.approx(expected)


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    saved = [_saved(tmp_path, "a", {"seed": 0}), _saved(tmp_path, "b", {"seed": 0})]
    assert repeated_runs(runs_of(saved), {item.name: _scores(0.5) for item in saved}) == []
