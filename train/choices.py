"""The names that a user chooses from, in one place that imports nothing heavy: the command line reads it at start."""

from __future__ import annotations

from typing import Literal, get_args

ModelSize = Literal["tiny", "small", "base_plus", "large"]
MODEL_SIZES: tuple[ModelSize, ...] = get_args(ModelSize)

PromptChoice = Literal["centroid", "multi_point", "box", "mixed"]
PROMPTS: tuple[PromptChoice, ...] = get_args(PromptChoice)

DeviceChoice = Literal["auto", "cpu", "cuda"]
SplitChoice = Literal["train", "val", "test", "all"]

BaselineName = Literal["box", "image", "disc"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
