"""Validation uses the prompts of the run, and returns the score that the run chose."""

import pytest
import torch

from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store
from train.config import FitConfig
from train.fit import validate as module
from train.fit.validate import validate
from train.model.promptable import PromptableSam
from train.runtime.distributed import World
from train.score.answers import score_tiles, tiles_with_objects
from train.score.tile_answer import Question


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [("box", {"box"}), ("centroid", {"centroid"}), ("multi_point", {"multi_point"}), ("mixed", {"box", "centroid"})],
)
@pytest.mark.parametrize("negatives", [False, True])
def test_validation_uses_the_prompts_of_the_run(
    store: Store, nano: PromptableSam, monkeypatch: pytest.MonkeyPatch, prompt, kinds: set[str], negatives: bool
) -> None:
    questions: list[Question] = []

    def noted(*arguments: object):
        for scored in score_tiles(*arguments):  # pyright: ignore[reportArgumentType]
            questions.append(scored.answer.question)
            yield scored

    monkeypatch.setattr(module, "score_tiles", noted)
    config = FitConfig(image_size=128, prompt=prompt, negatives=negatives)
    tiles = tiles_with_objects(store, "val")[:2]
    found = validate(nano, store, tiles, config, World(), torch.device("cpu"))
    summary, score, panels = found.scores, found.score("dice"), found.panels
    assert set(summary) == {question.kind for question in questions} == kinds
    labels = {int(label) for question in questions for given in question.prompts for label in given["point_labels"]}
    assert (int(PointLabel.NEGATIVE) in labels) is negatives
    assert len(panels) == len(tiles)
    # All prompt kinds have the same weight in the score that chooses the best weights.
    means = [scores["overall"]["class_mean"]["dice"]["value"] for scores in summary.values()]
    assert score == pytest.approx(sum(means) / len(means), abs=1e-9)
    of_objects = [scores["overall"]["dice"] for scores in summary.values()]
    assert found.score("dice", by_objects=True) == pytest.approx(sum(of_objects) / len(of_objects), abs=1e-9)


def test_score_is_the_one_that_the_run_chose(store: Store, nano: PromptableSam) -> None:
    tiles = tiles_with_objects(store, "val")[:2]
    found = {}
    for name in ("dice", "iou"):
        config = FitConfig(image_size=128, prompt="box", best_by=name)
        validation = validate(nano, store, tiles, config, World(), torch.device("cpu"))
        score = validation.score(name)
        assert score == validation.scores["box"]["overall"]["class_mean"][name]["value"]
        found[name] = score
    assert found["iou"] < found["dice"]


def test_each_tile_of_a_validation_is_told_once(store: Store, nano: PromptableSam) -> None:
    told: list[tuple[str, int, int]] = []
    tiles = tiles_with_objects(store, "val")[:3]
    config = FitConfig(image_size=128)
    note = validate(nano, store, tiles, config, World(), torch.device("cpu"), lambda *done: told.append(done))
    assert told == [("validate", 1, 3), ("validate", 2, 3), ("validate", 3, 3)]
    assert note.scores == validate(nano, store, tiles, config, World(), torch.device("cpu")).scores


def test_mode_of_the_model_is_set_once_and_restored(
    store: Store, nano: PromptableSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the mode of all modules for each mask took longer than the masks of nano."""
    modes: list[bool] = []
    set_mode = PromptableSam.train

    def noted(model: PromptableSam, mode: bool = True) -> PromptableSam:
        modes.append(mode)
        return set_mode(model, mode)

    monkeypatch.setattr(PromptableSam, "train", noted)
    tiles = tiles_with_objects(store, "val")[:2]
    config = FitConfig(image_size=128)
    evaluated = validate(nano, store, tiles, config, World(), torch.device("cpu"))
    assert modes == []
    nano.train()
    try:
        trained = validate(nano, store, tiles, config, World(), torch.device("cpu"))
        assert nano.training
    finally:
        nano.eval()
    assert modes == [True, False, True, False]
    assert trained.scores == evaluated.scores
