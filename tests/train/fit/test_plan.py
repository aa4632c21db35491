"""The plan of a run: its counts are those of the run, its memory and time are measured, and nothing is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch
from train.data.windows import find_windows
from train.fit.plan import GIB, Plan, plan_run
from train.fit.policies import Policies
from train.fit.step import LaunchedStep, TrainStep
from train.fit.step_memory import StepMemory
from train.model.promptable import PromptableSam
from train.score.answers import tiles_with_objects

FAST = {"model": "nano", "image_size": 128, "batch_size": 4, "workers": 0, "device": "cpu", "max_objects": 2}


@pytest.fixture(scope="module")
def plan(store: Store, module_path: Path) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_path)
        return plan_run(store, FitConfig.model_validate({**FAST, "freeze": "decoder_only", "epochs": 3}))


def test_counts_are_those_of_the_run(plan: Plan, store: Store) -> None:
    model = PromptableSam("nano", 128)
    model.freeze(plan.config.freeze)
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    assert plan.trained == sum(count for count, trains in numbers if trains)
    assert plan.trained + plan.frozen == sum(count for count, _ in numbers)
    tiles = tiles_with_objects(store, "train")
    assert (plan.train_tiles, plan.steps_per_epoch, plan.steps) == (len(tiles), 9, 27)
    assert plan.most_objects == min(2, np.diff(store.column("tiles/object_offsets"))[tiles].max())
    assert plan.validations == 4


def test_memory_and_time_are_measured_and_nothing_is_written(plan: Plan, module_path: Path) -> None:
    assert plan.memory.batch is not None
    assert 1e7 < plan.memory.one_image < plan.memory.batch * 1.2
    assert plan.memory.limit > plan.memory.batch
    assert plan.val_tile_s is not None
    assert 0 < plan.step_s < 60
    assert 0 < plan.val_tile_s < 60
    assert list(module_path.iterdir()) == []
    said = "\n".join(plan.lines())
    assert f"{plan.trained:,} parameters train" in said
    assert f"trains   sam_mask_decoder {plan.trained:,}\n" in said
    assert "27 steps of 4 images, 3 epochs of 9 steps" in said
    assert "for 4 validations" in said


def test_memory_grows_in_a_straight_line_with_the_images() -> None:
    memory = StepMemory(one_image=2 * GIB, two_images=4 * GIB, batch=5 * GIB, images=4, limit=20 * GIB)
    # The slope is that of the larger batch, if it was measured.
    assert memory.per_image == GIB
    # 18 of 20 GiB may be used: 2 for the first image, 1 for each of 16 more.
    assert memory.largest_batch == 17
    assert replace(memory, limit=GIB).largest_batch == 0
    # With two images, the second one takes 2 GiB.
    assert replace(memory, batch=None, images=64).largest_batch == 9
    assert replace(memory, batch=2 * GIB, images=1).largest_batch == 9
    # A batch that did not fit is larger than the largest one that does.
    assert replace(memory, batch=None, images=8).largest_batch == 7
    assert replace(memory, two_images=None, batch=None).largest_batch == 1
    assert StepMemory(GIB, GIB, GIB, 1, 20 * GIB).largest_batch is None


def test_batch_that_does_not_fit_is_named_with_the_largest_that_does(plan: Plan) -> None:
    memory = StepMemory(one_image=2 * GIB, two_images=3 * GIB, batch=None, images=64, limit=8 * GIB)
    said = replace(plan, memory=memory, timed=Policies(20, 60), step_s=2.0, val_tile_s=None).lines()[-3:]
    assert re.fullmatch(r"memory   2\.0 GiB for one image, but 64 images .* do not fit into 8\.0 GiB \(cpu\)", said[0])
    parts = r"2\.0 GiB for one and 1\.0 GiB for each further image, and 10% stay free"
    assert re.fullmatch(rf"batch    about 6 images fit into 8\.0 GiB, extrapolated: {parts}", said[1])
    assert said[2] == "time     with --batch-size 6, 2 min 0 s for 60 steps (2.00 s each): about 2 min 0 s"
    (said,) = [line for line in replace(plan, memory=replace(memory, two_images=None)).lines() if line[:5] == "batch"]
    assert said == "batch    about 1 image fits into 8.0 GiB: two do not, or it is not sure that they do"
    (said,) = [
        line for line in replace(plan, memory=StepMemory(GIB, GIB, GIB, 1, 2 * GIB)).lines() if line[:5] == "batch"
    ]
    assert said.endswith("so the largest batch is not known")


def test_cpu_batch_that_would_not_fit_is_not_tried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing memory is simulated: one image takes 1 GiB, two take 2 GiB, of 8 GiB."""
    tried: list[int] = []

    def peak(_prepared: object, batches: list[object], _device: object) -> int:
        tried.append(batches[0].images.shape[1])  # pyright: ignore[reportAttributeAccessIssue]
        return tried[-1] * GIB

    monkeypatch.setattr("train.fit.step_memory.peak_of_step", peak)
    monkeypatch.setattr("train.fit.step_memory.memory_bytes", lambda _device: 8 * GIB)
    timed: list[int] = []

    class Noting(TrainStep):
        def launch(self, batches: Sequence[Batch]) -> LaunchedStep:
            timed.append(batches[0].images.shape[1])
            return super().launch(batches)

    monkeypatch.setattr("train.fit.prepare.TrainStep", Noting)
    plan = plan_run(store, FitConfig.model_validate({**FAST, "batch_size": 16, "freeze": "decoder_only", "epochs": 1}))
    assert tried == [1, 2]
    assert plan.memory.batch is None
    # 7.2 of 8 GiB may be used, so batches of seven are timed, which make more steps.
    assert (plan.memory.largest_batch, set(timed[1:-1])) == (7, {7})
    assert plan.timed.total_steps == -(-plan.train_tiles // 7) > plan.steps
    assert plan.step_s > 0


def test_batch_that_a_gpu_refuses_leaves_the_largest_below_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(_prepared: object, batches: list[object], _device: object) -> int:
        images: int = batches[0].images.shape[1]  # pyright: ignore[reportAttributeAccessIssue]
        if images > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images * GIB

    monkeypatch.setattr("train.fit.step_memory.peak_of_step", peak)
    monkeypatch.setattr("train.fit.step_memory.memory_bytes", lambda _device: 100 * GIB)
    flags = {**FAST, "batch_size": 5, "freeze": "decoder_only", "max_steps": 1}
    plan = plan_run(store, FitConfig.model_validate(flags))
    # In a straight line, 90 images would fit; the device says that five do not.
    assert (plan.memory.batch, plan.memory.largest_batch, plan.memory.timed_batch) == (None, 4, 4)


def test_two_images_are_not_tried_where_they_may_end_the_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def peak(_prepared: object, batches: list[object], _device: object) -> int:
        tried.append(batches[0].images.shape[1])  # pyright: ignore[reportAttributeAccessIssue]
        return 20 * GIB

    monkeypatch.setattr("train.fit.step_memory.peak_of_step", peak)
    monkeypatch.setattr("train.fit.step_memory.memory_bytes", lambda _device: 30 * GIB)
    flags = {**FAST, "batch_size": 1, "freeze": "decoder_only", "max_steps": 1}
    plan = plan_run(store, FitConfig.model_validate(flags))
    assert tried == [1]
    assert (plan.memory.largest_batch, plan.memory.batch) == (1, 20 * GIB)


def test_plan_needs_no_cache_of_features(store: Store) -> None:
    config = FitConfig.model_validate({**FAST, "freeze": "image_encoder", "cache_features": True})
    with pytest.raises(ConfigError, match="--plan: cannot be used with --cache-features"):
        plan_run(store, config)


def test_plan_of_frames_counts_windows_and_names_the_memory(sequences: Store) -> None:
    flags = {**FAST, "batch_size": 2, "frames": 3, "prompt": "box", "max_steps": 2}
    plan = plan_run(sequences, FitConfig.model_validate(flags))
    windows = find_windows(sequences, tiles_with_objects(sequences, "train"), 3, 1)
    assert plan.train_tiles == len(windows.tiles)
    assert plan.most_objects == 2
    said = "\n".join(plan.lines())
    assert re.search(r"trains   image_encoder [\d,]+, .*memory [\d,]+$", said, re.MULTILINE)
    assert f"{len(windows.tiles)} training windows of 3 frames" in said
    assert "2 steps of 2 windows of 3 frames" in said
    assert re.search(r"at the peak of a step with 2 windows of 3 frames of up to 2 objects", said)
    # A process that has used much memory before may measure no growth, so the sizes are given.
    said = "\n".join(replace(plan, memory=StepMemory(GIB, 2 * GIB, 2 * GIB, 2, 20 * GIB)).lines())
    assert re.search(r"about 18 windows fit into .*1.0 GiB for one and 1.0 GiB for each further window", said)


@pytest.mark.parametrize("frames", [1, 3])
def test_plan_measures_steps_with_all_frames(sequences: Store, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    measured: list[int] = []

    def peak(_prepared: object, batches: list[object], _device: object) -> int:
        measured.append(batches[0].images.shape[0])  # pyright: ignore[reportAttributeAccessIssue]
        return GIB

    monkeypatch.setattr("train.fit.step_memory.peak_of_step", peak)
    flags = {**FAST, "batch_size": 1, "frames": frames, "prompt": "box", "max_steps": 1, "freeze": "memory"}
    plan = plan_run(sequences, FitConfig.model_validate(flags))
    # Two windows are measured, too, so that the largest batch is known.
    assert measured == [frames, frames]
    assert "memory" not in plan.trained_parts
