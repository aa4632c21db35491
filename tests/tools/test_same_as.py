"""One changed byte, weight or digit is found, and a new setting is only noted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.compare import TIMES, compare_checkpoints, compare_folders, compare_json, compare_names, compare_stores

STORE = Path(__file__).parents[1] / "golden" / "store_3638d48.zarr"


def _flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_copy_of_a_store_is_the_same_and_one_byte_is_found(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(STORE, tmp_path / "copy.zarr"))
    whole = compare_stores("store", STORE, copy)
    assert whole.count > 30
    assert (whole.differences, whole.notes) == ((), ())
    _flip_last_byte(copy / "objects" / "class_id" / "c" / "0")
    (difference,) = compare_stores("store", STORE, copy).differences
    assert difference.startswith("store: objects/class_id/c/0 has another byte at ")


def test_digest_in_the_manifest_is_compared_and_a_new_version_is_noted(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(STORE, tmp_path / "copy.zarr"))
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"]["bcss"]["tool_version"] = "9.9"
    (copy / "zarr.json").write_text(json.dumps(root))
    found = compare_stores("store", STORE, copy)
    assert found.differences == ()
    assert "is 9.9" in found.notes[0]
    root["attributes"]["bcss"]["complete"]["checksums_sha256"] = "0"
    (copy / "zarr.json").write_text(json.dumps(root))
    assert len(compare_stores("store", STORE, copy).differences) == 1


def test_new_entry_of_the_manifest_is_noted_and_a_digest_that_differs_alone_is_found(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(STORE, tmp_path / "copy.zarr"))
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"]["bcss"]["complete"]["manifest_sha256"] = "0"
    (copy / "zarr.json").write_text(json.dumps(root))
    (difference,) = compare_stores("store", STORE, copy).differences
    assert "manifest_sha256 was" in difference
    root["attributes"]["bcss"]["method"] = "new"
    (copy / "zarr.json").write_text(json.dumps(root))
    found = compare_stores("store", STORE, copy)
    assert (found.differences, len(found.notes)) == ((), 1)


def test_file_that_one_side_lacks_is_found(tmp_path: Path) -> None:
    for side in ("then", "now"):
        (tmp_path / side / "logs").mkdir(parents=True)
        (tmp_path / side / "a").write_text("a")
        (tmp_path / side / "logs" / side).write_text("")
    (tmp_path / "now" / "new").write_text("")
    then, now = tmp_path / "then", tmp_path / "now"
    assert compare_folders("x", then, now, ["logs/then", "logs/now"]).differences == ("x: new is new",)
    names = compare_names("x", then, now, left_out="logs")
    assert (names.differences, names.notes) == ((), ("x: new is new",))
    (now / "a").unlink()
    assert compare_names("x", then, now, left_out="logs").differences == ("x: a is no longer written",)


@pytest.mark.parametrize(
    ("changed", "differences"),
    [({"loss": 0.1 + 2**-58}, 0), ({"loss": 0.1 + 2**-56}, 1), ({"loss": float("nan")}, 1), ({"step_s": 9.0}, 0)],
)
def test_last_digit_of_a_loss_is_found_and_times_are_not_compared(
    tmp_path: Path, changed: dict[str, float], differences: int
) -> None:
    line = {"step": 1, "loss": 0.1, "step_s": 0.5}
    for name, values in (("then", line), ("now", line | changed)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(values) + "\n")
    found = compare_json("metrics", tmp_path / "then.jsonl", tmp_path / "now.jsonl", TIMES)
    assert len(found.differences) == differences


def _content() -> dict[str, Any]:
    return {
        "model": {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.int32)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "rng": {"python": [1, 2]},
        "time_elapsed": 1.0,
        "config": {"seed": 0},
    }


def test_one_weight_one_state_and_one_setting_are_found(tmp_path: Path) -> None:
    torch.save(_content(), tmp_path / "then.pt")
    changed = _content()
    changed["time_elapsed"], changed["rng"]["python"] = 2.0, [3, 4]
    changed["config"]["new"] = True
    torch.save(changed, tmp_path / "now.pt")
    found = compare_checkpoints("run", tmp_path / "then.pt", tmp_path / "now.pt")
    assert (found.differences, found.notes) == ((), ("run: config.new = True is new",))
    changed["model"]["a"][2] += 2**-22
    changed["optimizer"]["state"][0]["step"] += 1
    changed["config"]["seed"] = 1
    torch.save(changed, tmp_path / "now.pt")
    differences = compare_checkpoints("run", tmp_path / "then.pt", tmp_path / "now.pt").differences
    places = ["run: model.a", "run: optimizer.state.0.step", "run: config.seed"]
    assert [difference.startswith(place) for difference, place in zip(differences, places, strict=True)] == [True] * 3
