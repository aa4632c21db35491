import json
import shutil
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import BcssError, ConfigError, StoreError
from schemas.store.store import Store, open_store
from train.data import tile_parts
from train.model.loading import load_mask_predictor, load_predictors
from train.model.names import name_checkpoints
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.output.evaluation_files import write_evaluation
from train.score.answers import tiles_with_objects
from train.score.evaluate import evaluate
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.scored_once import ScoredOnce


def test_metrics_json_has_models_and_baselines_on_the_same_objects(
    store: Store, nano: PromptableSam, tmp_path: Path
) -> None:
    predictors = {"model": MaskPredictor(nano, torch.device("cpu"))}
    seen: list[tuple[int, int]] = []
    protocol = ScoringProtocol("test", ("box", "centroid"))
    write_evaluation(evaluate(store, predictors, protocol, on_tile=lambda *at: seen.append(at)), tmp_path)
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["protocol"]["split"] == "test"
    assert set(result["models"]) == {"model", "baseline:box", "baseline:image", "baseline:disc"}
    counts = {scores["overall"]["n"] for kinds in result["models"].values() for scores in kinds.values()}
    tiles = tiles_with_objects(store, "test")
    once = ScoredOnce(store, tiles)
    assert counts == {sum(int(once.kept(once.counted(store[index])).sum()) for index in tiles.tolist())}
    for kinds in result["models"].values():
        for scores in kinds.values():
            assert scores["overall"]["n"] == sum(entry["n"] for entry in scores["classes"].values())
    assert seen[-1] == (len(tiles), len(tiles))
    with Image.open(tmp_path / "overlays.png") as picture:
        assert picture.size == (2048, 2 * (512 + 76))


def test_start_is_drawn_beside_the_model_with_its_own_dice(
    store: Store, nano: PromptableSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("run/best", "baseline:zero_shot")
    cpu = torch.device("cpu")
    predictors = {
        "run/best": MaskPredictor(nano, cpu),
        "baseline:zero_shot": MaskPredictor(PromptableSam("nano", 128).eval(), cpu),
    }
    with monkeypatch.context() as patch:
        # A tile that is answered in parts, one for each object, has one picture of each model all the same.
        patch.setattr(tile_parts, "MAX_PART_BYTES", store.manifest.tile_size_px**2)
        found = evaluate(store, predictors, ScoringProtocol("test", ("box", "centroid"), baselines=()))
    expected: list[list[str]] = []
    for index in tiles_with_objects(store, "test").tolist():
        record = store[index]
        x, y = record.origin_xy
        pair: list[str] = []
        for model in reversed(models):
            table = found.tables[model]["centroid"]
            own = table.dice[table.tile_index == index]
            dice = f"Dice {own.mean():.3f}" if len(own) else "no object is scored here"
            pair.append(f"{model}, centroid, {dice}; {record.frame_id} at {x}, {y}")
        expected.append(pair)
    pairs = [found.captions[place : place + 2] for place in range(0, len(found.captions), 2)]
    assert len(pairs) == min(8, len(expected))
    assert all(pair in expected for pair in pairs)
    assert len(found.panels) == len(found.captions)
    assert found.result["protocol"]["overlays_show"] == next(iter(models))
    assert found.result["protocol"]["overlays_beside"] == list(models)[1:]
    # Without a start, the same model gives the same pictures alone.
    alone = evaluate(store, {"run/best": predictors["run/best"]}, ScoringProtocol("test", ("centroid",), baselines=()))
    assert alone.captions == found.captions[1::2]
    assert all(np.array_equal(own, beside) for own, beside in zip(alone.panels, found.panels[1::2], strict=True))
    assert not any(np.array_equal(own, start) for own, start in zip(alone.panels, found.panels[::2], strict=True))


def test_result_holds_the_protocol_and_all_measures(store: Store, nano: PromptableSam) -> None:
    predictors = {name: MaskPredictor(nano, torch.device("cpu")) for name in ("a", "b")}
    result = evaluate(store, predictors, ScoringProtocol("test", ("box",), tolerance_um=2.0)).result
    json.dumps(result, allow_nan=False)
    assert result["protocol"] | {"prompts": ["box"], "surface_tolerance_um": 2.0, "tta": False} == result["protocol"]
    for name, kinds in result["models"].items():
        means = kinds["box"]["overall"]
        assert {"dice", "iou", "surface_dice", "n", "patients", "ci95"} <= set(means)
        assert set(means["ci95"]) == {"dice", "iou", "surface_dice"}
        assert ("iou_estimate" in means) == (not name.startswith("baseline:"))
    pairs = [(pair["model"], pair["minus"]) for pair in result["paired"]]
    # Each model is compared with the best baseline, and not with the other model.
    # A disc sees more of the truth than a box tells, so it is not among them.
    baselines = [f"baseline:{name}" for name in ("box", "image")]
    best = max(baselines, key=lambda name: result["models"][name]["box"]["overall"]["class_mean"]["dice"]["value"])
    assert set(pairs) == {("a", best), ("b", best), pairs[0]}
    for pair in result["paired"]:
        first, second = (result["models"][pair[key]]["box"]["overall"] for key in ("model", "minus"))
        assert pair["dice"] == pytest.approx(first["dice"] - second["dice"])
        assert pair["n"] == first["n"]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_tile_is_an_error_of_one_line_in_any_process(store: Store, tmp_path: Path, workers: int) -> None:
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    (shard,) = [path for path in (tmp_path / "copy.zarr" / "images" / "c").rglob("*") if path.is_file()]
    data = bytearray(shard.read_bytes())
    data[8] ^= 4
    shard.write_bytes(data)
    before = set(active_children())
    with pytest.raises(
        BcssError, match=r"images row 0: cannot be decoded.*`bcss-prep verify` lists all damage"
    ) as found:
        evaluate(open_store(tmp_path / "copy.zarr"), {}, ScoringProtocol("all", ("box",)), workers=workers)
    assert "\n" not in str(found.value)
    # The processes that read have ended, although the error still exists.
    assert set(active_children()) <= before


def test_box_baseline_is_the_filled_box(store: Store) -> None:
    result = evaluate(store, {}, ScoringProtocol("val", ("box",), baselines=("box",))).result
    expected = []
    tiles = tiles_with_objects(store, "val")
    once = ScoredOnce(store, tiles)
    for index in tiles.tolist():
        record = once.counted(store[index])
        kept = once.kept(record)
        for segment, (left, top, right, bottom) in zip(record.segments[kept], record.boxes_xyxy[kept], strict=True):
            filled = np.zeros_like(segment)
            filled[top : bottom + 1, left : right + 1] = True
            expected.append(score_masks(filled[None], segment[None], record.ignore).dice[0])
    assert result["models"]["baseline:box"]["box"]["overall"]["dice"] == pytest.approx(np.mean(expected))


def test_workers_change_nothing(store: Store, nano: PromptableSam) -> None:
    predictors = {"model": MaskPredictor(nano, torch.device("cpu"))}
    protocol = ScoringProtocol("val", ("multi_point",), True)
    one = evaluate(store, predictors, protocol)
    two = evaluate(store, predictors, protocol, workers=2)
    assert one.result == two.result


def test_split_without_objects_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="no object in the split 'dev'"):
        tiles_with_objects(store, "dev")


def test_the_network_of_official_checkpoints_is_found_from_their_weights(
    tiny: PromptableSam, nano: PromptableSam, tmp_path: Path
) -> None:
    for name, model in (("tiny", tiny), ("nano", nano)):
        torch.save({"model": model.sam.state_dict()}, tmp_path / f"{name}.pt")
    named = name_checkpoints([f"first={tmp_path / 'tiny.pt'}", f"second={tmp_path / 'nano.pt'}"])
    found = load_predictors(named, torch.device("cpu"), image_size=128)
    assert [(name, p.model.size) for name, p in found.items()] == [("first", "tiny"), ("second", "nano")]
    assert load_mask_predictor(tmp_path / "tiny.pt", torch.device("cpu")).model.image_size == 1024


def test_weights_of_no_known_network_need_a_model(nano: PromptableSam, tmp_path: Path) -> None:
    weights = nano.sam.state_dict()
    first = nano.backbone.patch_embedding
    for number, wrong in enumerate((weights[first][:8], torch.tensor(1.0))):
        path = tmp_path / f"{number}.pt"
        torch.save({"model": {**weights, first: wrong}}, path)
        with pytest.raises(ConfigError, match=r"\d.pt: does not say which model it is, .*; give --model"):
            load_mask_predictor(path, torch.device("cpu"))


def test_institutions_are_left_out_one_by_one_where_no_other_split_has_them(store: Store) -> None:
    # The synthetic patients are all of institutions of their own, and the test split has only one of them.
    patients, splits = store.column("tiles/patient"), store.column("tiles/split")
    of_split = {split: set(patients[splits == split].tolist()) for split in ("train", "val", "test")}
    assert [len(of_split[split]) for split in ("train", "test")] == [4, 1]
    train = evaluate(store, {}, ScoringProtocol("train", ("box",), baselines=("box", "image"))).result
    assert sum(train["institutions"]["patients"].values()) == 4
    assert train["institutions"]["patients"].keys() == {name.split("-")[1] for name in of_split["train"]}
    found = train["institutions"]["models"]["baseline:box"]["box"]
    assert found["without"].keys() == train["institutions"]["patients"].keys()
    assert len(set(found["without"].values())) > 1
    # With one institution, or if every patient is scored, there is nothing to leave out.
    for split in ("test", "all"):
        assert "institutions" not in evaluate(store, {}, ScoringProtocol(split, ("box",), baselines=("image",))).result
