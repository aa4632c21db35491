"""The whole pipeline on real tissue: from mask to store, fine-tuned weights and Meta's own predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store, open_store
from train.backbone.sam2 import SAM2
from train.config import FitConfig
from train.fit.trainer import fit
from train.loss.pixel_terms import upsample
from train.model.checkpoint import load_checkpoint
from train.model.loading import load_mask_predictor
from train.runtime.device import pick_device
from train.runtime.run_log import read_steps
from train.settings import OptimizerConfig
from train.transforms.sample import pad_prompts

CLASSES, IGNORED = [1, 2, 3, 4, 18], [0, 7, 15]
IMAGE_SIZE = 128


@pytest.fixture(scope="module")
def decoded(real_source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask as Pillow decodes them, without our code."""
    arrays = []
    for name in ("images", "masks"):
        (path,) = (real_source / name).iterdir()
        with Image.open(path) as picture:
            arrays.append(np.array(picture))
    return arrays[0], arrays[1]


@pytest.fixture(scope="module")
def tile_store(real_source: Path, module_path: Path) -> Store:
    build_store(real_source, module_path / "bcss.zarr", BuildConfig(size_px=512))
    return open_store(module_path / "bcss.zarr")


@pytest.fixture(scope="module", params=["tile", "resize"])
def real_store(real_source: Path, tile_store: Store, module_path: Path, request: pytest.FixtureRequest) -> Store:
    if request.param == "tile":
        return tile_store
    build_store(real_source, module_path / "resized.zarr", BuildConfig(layout="resize", size_px=512))
    return open_store(module_path / "resized.zarr")


def test_every_tile_equals_the_decoded_mask_pixel_for_pixel(
    real_store: Store, decoded: tuple[np.ndarray, np.ndarray]
) -> None:
    image, mask = decoded
    covered = np.zeros(mask.shape, bool)
    for record in real_store:
        (left, top), size = record.origin_xy, 512
        if real_store.manifest.config["layout"] == "tile":
            window = (slice(top, top + size), slice(left, left + size))
            np.testing.assert_array_equal(record.labels, mask[window])
            np.testing.assert_array_equal(record.image, image[window])
            covered[window] = True
        else:
            rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in mask.shape)
            np.testing.assert_array_equal(record.labels, mask[np.ix_(rows, columns)])
            covered[:] = True
        union = np.zeros_like(record.labels)
        for class_id, segment in zip(record.class_ids, record.segments, strict=True):
            assert not union[segment].any()
            union[segment] = class_id
        np.testing.assert_array_equal(union, np.where(np.isin(record.labels, CLASSES), record.labels, 0))
        np.testing.assert_array_equal(record.ignore, np.isin(record.labels, IGNORED))
    assert covered.all()


def test_positive_points_are_inside_the_object_and_negative_ones_outside(real_store: Store) -> None:
    counted = 0
    for record in real_store:
        by_id = dict(zip(record.object_ids.tolist(), record.segments, strict=True))
        for kind in ("centroid", "multi_point", "box"):
            for object_id, prompt in real_store.prompts(record.index, kind, negatives=True).items():
                x, y = prompt["point_coords"].astype(int).T
                on = by_id[object_id][y, x]
                assert on[prompt["point_labels"] == 1].all()
                off = prompt["point_labels"] == 0
                assert not on[off].any()
                assert not record.ignore[y, x][off].any()
                counted += len(x)
    assert counted > 50


@pytest.fixture(scope="module")
def run(tile_store: Store, module_path: Path) -> tuple[Store, Path]:
    config = FitConfig(
        image_size=IMAGE_SIZE,
        max_steps=20,
        batch_size=2,
        optimizer=OptimizerConfig(lr=1e-4, vision_lr=1e-4),
        workers=0,
        device="cpu",
        report=False,
    )
    fit(tile_store, config, module_path / "out")
    return tile_store, module_path / "out"


def test_loss_falls_in_twenty_steps(run: tuple[Store, Path]) -> None:
    losses = [step.loss for step in read_steps(run[1])]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    summary = json.loads((run[1] / "summary.json").read_text())
    assert summary["loss_last"] < summary["loss_first"]


def test_meta_loads_the_checkpoint_and_its_predictor_gives_the_same_masks(run: tuple[Store, Path]) -> None:
    store, out = run
    path = out / "checkpoints" / "checkpoint.pt"
    assert max(value.numel() for value in load_checkpoint(path)["model"].values()) < 5_000_000
    overrides = [f"++model.image_size={IMAGE_SIZE}"]
    sam = build_sam2(
        SAM2.networks["tiny"].config_file,
        str(path),
        device="cpu",
        hydra_overrides_extra=overrides,
        apply_postprocessing=False,
    )
    theirs = SAM2ImagePredictor(sam)
    # The predictor's own feature sizes are for a 1024 px input.
    sizes = [(IMAGE_SIZE // step, IMAGE_SIZE // step) for step in (4, 8, 16)]
    theirs._bb_feat_sizes = sizes  # pyright: ignore[reportPrivateUsage]
    ours = load_mask_predictor(path, pick_device("cpu"))
    overlaps = []
    for record in [store[0], store[len(store) // 2]]:
        theirs.set_image(record.image)
        views = ours.views(record.image)
        for kind in ("centroid", "box", "multi_point"):
            for prompt in store.prompts(record.index, kind).values():
                coords, labels = prompt["point_coords"], prompt["point_labels"]
                masks, ious, _ = theirs.predict(
                    point_coords=coords, point_labels=labels, multimask_output=len(labels) == 1
                )
                mask = ours.predict(views, *pad_prompts([prompt]), 512).masks(512)[0]
                other = masks[np.argmax(ious)].astype(bool)
                union = np.count_nonzero(mask | other)
                overlaps.append(np.count_nonzero(mask & other) / union if union else 1.0)
    assert np.mean(overlaps) >= 0.99


def test_training_path_gives_the_logits_of_the_predictor(run: tuple[Store, Path]) -> None:
    store, out = run
    ours = load_mask_predictor(out / "checkpoints" / "checkpoint.pt", pick_device("cpu"))
    record = store[1]
    prompts = list(store.prompts(1, "box").values())
    views = ours.views(record.image)
    masks = ours.predict(views, *pad_prompts(prompts), 512).masks(512)
    for prompt, mask in zip(prompts, masks, strict=True):
        coords = (torch.from_numpy(prompt["point_coords"])[None] + 0.5) * IMAGE_SIZE / 512 - 0.5
        with torch.no_grad():
            found = ours.model.decode(views[0].features, coords, torch.from_numpy(prompt["point_labels"])[None])
        np.testing.assert_array_equal((upsample(found.logits, 512, 512)[0, 0] > 0).numpy(), mask)
