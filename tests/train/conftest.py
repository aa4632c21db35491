"""Fixtures of training tests: small models with random weights, a batch, and a GPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import sam2.build_sam
import torch
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store, open_store
from tests.train.sequences import drifting_store
from train.data.collate import Batch, collate
from train.model.promptable import PromptableSam
from train.transforms.sample import Sample, read_sample


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Let `build_sam2` compose each configuration once, because that takes longer than building nano from it."""
    compose: Any = sam2.build_sam.compose  # pyright: ignore[reportPrivateImportUsage]

    @functools.cache
    def composed(name: str, overrides: tuple[str, ...]) -> Any:
        return compose(config_name=name, overrides=list(overrides))

    with pytest.MonkeyPatch.context() as patch:
        # `build_sam2` only resolves its configuration, and hydra builds the network from a copy.
        patch.setattr(sam2.build_sam, "compose", lambda config_name, overrides: composed(config_name, tuple(overrides)))
        yield


@pytest.fixture(scope="session")
def tiny() -> PromptableSam:
    """SAM 2.1 tiny at 128 px, random weights, evaluation mode. Tests share it and must not change its weights."""
    torch.manual_seed(0)
    return PromptableSam("tiny", 128).eval()


@pytest.fixture(scope="session")
def nano() -> PromptableSam:
    """SAM 2.1 nano at 128 px, random weights, evaluation mode. Tests share it and must not change its weights."""
    torch.manual_seed(0)
    return PromptableSam("nano", 128).eval()


@pytest.fixture
def mixed_batch(store: Store) -> Batch:
    """A batch of three images of the store: with boxes, with several and negative clicks, and with single clicks."""
    samples: list[Sample] = []
    choices: list[tuple[PromptKind, bool]] = [("box", False), ("multi_point", True), ("centroid", False)]
    for index, (kind, negatives) in enumerate(choices):
        samples.append(read_sample(store.tile(index), store.prompts(index, kind, negatives=negatives)))
    return collate(samples)


@pytest.fixture(scope="session")
def short_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The ROIs of `store`; the one for validation is cut to three tiles. Tests that train take this store."""
    source = tmp_path_factory.mktemp("short_sample")
    (validated,) = [stem for stem in write_sample(source, rois=6, size_px=288, seed=1) if stem.startswith("TCGA-BH")]
    for folder in ("images", "masks"):
        path = source / folder / f"{validated}.png"
        with Image.open(path) as picture:
            picture.crop((0, 0, picture.width, 128)).save(path)
    path = tmp_path_factory.mktemp("short_store") / "sample.zarr"
    build_store(source, path, BuildConfig(size_px=128))
    return open_store(path)


@pytest.fixture(scope="session")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of three sequences of six frames at 128 px; see `tests.train.sequences`."""
    return drifting_store(tmp_path_factory.mktemp("sequences"))


@pytest.fixture
def cuda() -> torch.device:
    """The first CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0)
