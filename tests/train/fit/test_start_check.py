"""The check at the start of a run: it warns only if the training code and Meta's predictor disagree."""

import copy
import logging

import pytest
import torch

from schemas.store.store import Store
from train.data.collate import Batch, collate
from train.fit import start_check
from train.fit.start_check import LEAST_DICE, check_against_predictor
from train.model.promptable import PromptableSam
from train.transforms.sample import Sample

CPU = torch.device("cpu")


def test_agreement_gives_no_warning_and_does_not_change_the_model(tiny: PromptableSam, store: Store, caplog) -> None:
    model = copy.deepcopy(tiny).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        dice = check_against_predictor(model, store, 0, CPU)
    assert dice >= LEAST_DICE
    assert not caplog.records
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("fault", ["channel_mean", "no_mem_embed"])
def test_fault_in_the_training_path_gives_a_warning(tiny: PromptableSam, store: Store, caplog, fault: str) -> None:
    model = copy.deepcopy(tiny)
    with torch.no_grad():
        if fault == "channel_mean":
            # Normalize pixels from 0 to 1 with statistics for 0 to 255, as if a factor were forgotten.
            model.channel_mean.mul_(255)
        else:
            # Meta's predictor also adds this parameter to its embedding, so it cannot be changed in the weights.
            encode = model.encode
            model.encode = lambda images: type(found := encode(images))(
                found.embedding - 100 * model.sam.no_mem_embed.reshape(1, -1, 1, 1), found.high_res
            )
    with caplog.at_level(logging.WARNING):
        dice = check_against_predictor(model, store, 0, CPU)
    assert dice < LEAST_DICE
    assert "DISAGREES WITH SAM2ImagePredictor ON TILE 0" in caplog.text


def test_only_a_few_objects_are_compared(tiny: PromptableSam, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(samples: list[Sample]) -> Batch:
        batch = collate(samples)
        seen.append(batch.num_objects)
        return batch

    monkeypatch.setattr(start_check, "collate", noted)
    monkeypatch.setattr(start_check, "MOST_OBJECTS", 1)
    tile = next(index for index in range(len(store)) if len(store.tile(index).classes) > 1)
    assert check_against_predictor(copy.deepcopy(tiny), store, tile, CPU) >= LEAST_DICE
    assert seen == [1]
