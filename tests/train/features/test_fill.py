"""Training from a feature cache uses the same data and, within the rounding of bfloat16, has the same loss."""

import os
import shutil
import signal
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.errors import ConfigError, StoreError
from schemas.store.store import Store, open_store
from tests.warm_start import WarmProcess, run_warm
from train.config import FitConfig, read_config
from train.data.collate import Batch, collate
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.features.cache import FeatureCache
from train.features.fill import check_cacheable, filled_features
from train.fit.forward import TrainingForward
from train.fit.state import RunIdentity, start_run
from train.fit.trainer import fit
from train.loss.batch_loss import batch_loss
from train.model.checkpoint import load_checkpoint
from train.model.promptable import PromptableSam
from train.runtime.distributed import World
from train.runtime.run_log import StepRecord, read_steps
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects

CPU = torch.device("cpu")
FLAGS = {
    "model": "nano",
    "image_size": 128,
    "batch_size": 2,
    "max_objects": 2,
    "max_steps": 6,
    "epochs": 3,
    "optimizer.lr": 1e-4,
    "freeze": "decoder_only",
    "device": "cpu",
    "workers": 0,
    "seed": 3,
    "report": False,
    "cache_features": True,
}
OPTIONS = SampleOptions(128, "mixed", corrections=1, max_objects=2, seed=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four training tiles of 96 px, so that the model's 128 px need a resize."""
    folder = tmp_path_factory.mktemp("small")
    write_sample(folder / "source", rois=1, size_px=192)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=96))
    return open_store(folder / "s.zarr")


@pytest.fixture
def own(small: Store, tmp_path: Path) -> Store:
    """A copy of the store in the test's own folder, so that its caches are the test's own, too."""
    shutil.copytree(small.path, tmp_path / "own.zarr")
    return open_store(tmp_path / "own.zarr")


@pytest.fixture(scope="module")
def model() -> PromptableSam:
    return start_run(read_config(None, FLAGS), RunIdentity("", 2, 2), CPU).model


@pytest.fixture(scope="module")
def filled(small: Store, model: PromptableSam) -> FeatureCache:
    tiles = tiles_with_objects(small, "train").tolist()
    return filled_features(model, small, read_config(None, FLAGS), tiles, World(), CPU, StopRequest())


@pytest.fixture(scope="module")
def plain(small: Store, module_path: Path) -> Path:
    out = module_path / "plain"
    fit(small, read_config(None, {**FLAGS, "cache_features": False}), out)
    return out


@pytest.fixture(scope="module")
def cached(small: Store, filled: FeatureCache, module_path: Path) -> Path:
    out = module_path / "cached"
    fit(small, read_config(None, FLAGS), out)
    return out


def test_each_view_is_the_encoding_of_the_turned_tile(small: Store, model: PromptableSam, filled: FeatureCache) -> None:
    tile = int(tiles_with_objects(small, "train")[1])
    stored = torch.from_numpy(small[tile].image).permute(2, 0, 1)[None]
    for view in range(8):
        turned = stored.rot90(view % 4, (2, 3))
        turned = turned.flip(3) if view >= 4 else turned
        image = F.interpolate(turned.float(), (128, 128), mode="bilinear", antialias=True).round().clamp(0, 255)
        for found, expected in zip(filled.read(tile, view), model.encode_kept(image), strict=True):
            # The order of a sum depends on the size of the batch, so a value may round to the next bfloat16 number.
            torch.testing.assert_close(found.float(), expected[0].bfloat16().float(), rtol=2**-7, atol=1e-4)
            assert (found == expected[0].bfloat16()).float().mean() > 0.999


def test_sample_with_features_differs_only_in_the_image(small: Store, filled: FeatureCache) -> None:
    ours, theirs = TileDataset(small.path, OPTIONS, filled), TileDataset(small.path, OPTIONS)
    views = set()
    for epoch in range(12):
        for tile in tiles_with_objects(small, "train").tolist():
            mine, other = (dataset[SampleRequest(tile, epoch)] for dataset in (ours, theirs))
            for field in fields(mine):
                one, two = getattr(mine, field.name), getattr(other, field.name)
                if isinstance(one, Tensor) and field.name != "image":
                    assert torch.equal(one, two), field.name
                elif field.name not in ("image", "features"):
                    assert one == two, field.name
            assert mine.image.shape == (0, 128, 128)
            kept = filled.read(tile, mine.view)
            assert all(torch.equal(a, b) for a, b in zip(mine.features or (), kept, strict=True))
            views.add(mine.view)
    assert views == set(range(8))
    assert len(ours[SampleRequest(0, 0, empty=True)].object_ids) == 0


def _loss_and_gradient(model: PromptableSam, batch: Batch) -> tuple[float, Tensor]:
    model.zero_grad()
    loss = batch_loss(TrainingForward(model)(batch), batch, FitConfig().loss, batch.num_objects).total
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_loss_and_gradient_are_the_same_within_rounding(
    small: Store, model: PromptableSam, filled: FeatureCache
) -> None:
    requests = [SampleRequest(tile, 1) for tile in tiles_with_objects(small, "train").tolist()]
    both = [TileDataset(small.path, OPTIONS, features) for features in (filled, None)]
    ours, theirs = (collate([dataset[request] for request in requests]) for dataset in both)
    exact = [values[None] for values in model.encode_kept(theirs.images[0])]
    loss, gradient = _loss_and_gradient(model, theirs)

    # The rest of the model takes nothing else from the image. With features that are not rounded, the loss and the
    # gradient therefore stay the same.
    same_loss, same_gradient = _loss_and_gradient(model, replace(ours, features=tuple(exact)))
    assert same_loss == loss
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-4, atol=1e-6)
    # Features that this test rounds itself give the same loss as the features in the cache.
    rounded = tuple(values.bfloat16() for values in exact)
    my_loss, my_gradient = _loss_and_gradient(model, ours)
    assert _loss_and_gradient(model, replace(ours, features=rounded))[0] == pytest.approx(my_loss, rel=1e-6)

    # bfloat16 has 8 bits of significand, so rounding turns x into x (1 + e) with |e| <= 2^-9. To first order the loss
    # changes by the sum of e x dL/dx, which is at most 2^-9 sum |x dL/dx|. The errors mostly cancel each other: the
    # loss changes by about 1 % of that bound.
    leaves = [values.clone().requires_grad_() for values in exact]
    _loss_and_gradient(model, replace(ours, features=tuple(leaves)))
    bound = sum(float((leaf * leaf.grad).detach().abs().sum()) for leaf in leaves if leaf.grad is not None) * 2**-9
    assert 0 < abs(my_loss - loss) < bound < 0.005 * loss
    assert float((my_gradient - gradient).norm() / gradient.norm()) < 2**-9


def test_run_is_the_same_within_rounding(plain: Path, cached: Path) -> None:
    for ours, theirs in zip(read_steps(cached), read_steps(plain), strict=True):
        assert (ours.tiles, ours.objects, ours.dropped) == (theirs.tiles, theirs.objects, theirs.dropped)
        assert theirs.loss == pytest.approx(ours.loss, rel=2**-9)
        assert theirs.grad_norm == pytest.approx(ours.grad_norm, rel=2**-6)
    assert any(a.loss != b.loss for a, b in zip(read_steps(plain), read_steps(cached), strict=True))


def test_resumed_run_and_run_with_workers_have_the_same_weights(small: Store, cached: Path, tmp_path: Path) -> None:
    def stop(record: StepRecord, total: int) -> None:
        if record.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small, read_config(None, {**FLAGS, "save_every_steps": 1}), tmp_path, on_step=stop)
    with pytest.raises(ConfigError, match="was started with cache_features = True, not False"):
        fit(small, read_config(None, {**FLAGS, "cache_features": False}), tmp_path, resume=True)
    fit(small, read_config(None, {**FLAGS, "workers": 1}), tmp_path, resume=True)
    ours, theirs = (load_checkpoint(run / "checkpoints" / "checkpoint.pt")["model"] for run in (tmp_path, cached))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ""}, "image_encoder.trunk.pos_embed is trained; add --freeze decoder_only"),
        ({"freeze": "decoder_and_neck"}, "image_encoder.neck.convs.0.conv.weight is trained; add"),
        ({"augment.stain": 0.1}, "augment.stain = 0.1 changes them; leave augment.stain or"),
        ({"augment.crop": 0.9}, "augment.crop = 0.9 changes them"),
        ({"augment.rotate_deg": 5.0}, "augment.rotate_deg = 5.0 changes them"),
        ({"lora.rank": 2}, "--lora trains adapters in it; leave one of the two out"),
    ],
)
def test_features_that_would_change_are_refused(small: Store, tmp_path: Path, changes, message: str) -> None:
    if "lora.rank" in changes:
        pytest.importorskip("peft", reason="the lora extra is not installed")
    with pytest.raises(ConfigError, match="--cache-features: needs") as caught:
        fit(small, read_config(None, {**FLAGS, **changes}), tmp_path / "run")
    assert message in str(caught.value)


def test_remote_store_and_small_disk_are_refused(
    small: Store, own: Store, model: PromptableSam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="needs a folder beside the data; copy the store to a local disk"):
        check_cacheable(model, Store("s3://bucket/s.zarr"), read_config(None, FLAGS))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match=r"needs 5\.11 MB, but only 1 kB are free; free space; add --freeze"):
        fit(own, read_config(None, FLAGS), tmp_path / "run")


def test_size_is_logged_before_filling_and_existing_features_are_reused(own: Store, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    config = read_config(None, {**FLAGS, "max_steps": 1, "augment.orientation": False})
    fit(own, config, tmp_path / "one")
    messages = [record.getMessage() for record in caplog.records if record.name == "train.features.fill"]
    (folder,) = tmp_path.glob("own.zarr.features-*.zarr")
    assert messages[0].startswith(f"{folder}: needs 639 kB for 6 tiles with 1 views of 106 kB; ")
    assert messages[0].endswith(" free; add --freeze sam_mask_decoder.conv_s0,sam_mask_decoder.conv_s1 to need less")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("c.*")}
    assert len(written) == 6 * 3
    caplog.clear()
    fit(own, config, tmp_path / "two")
    assert f"features of all 6 tiles are in {folder}" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("c.*")} == written
    losses = [[step.loss for step in read_steps(tmp_path / run)] for run in ("one", "two")]
    assert losses[0] == losses[1]


def _command(store: Store, out: Path, *more: str) -> list[str]:
    flags = [
        "--model",
        "nano",
        "--image-size",
        "128",
        "--batch-size",
        "2",
        "--max-objects",
        "2",
        "--max-steps",
        "6",
        "--epochs",
        "3",
    ]
    flags += ["--lr", "1e-4", "--freeze", "decoder_only", "--device", "cpu", "--workers", "0", "--seed", "3"]
    run = [sys.executable, "-m", "train.cli", "fit", store.path, "--out", str(out), "--cache-features", "--no-report"]
    return [*run, *flags, *more]


def _wait_for_files(process: WarmProcess, folder: Path, count: int) -> None:
    while len(list(folder.glob("own.zarr.features-*/stride_16/c.*.0"))) < count:
        assert process.poll() is None
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_fill_continues(own: Store, filled: FeatureCache, tmp_path: Path, number: int) -> None:
    run = WarmProcess(_command(own, tmp_path / "run"))
    _wait_for_files(run, tmp_path, 2)
    os.kill(run.pid, number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == (0 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM after step 0; --resume continues the run" in output
    cache = replace(filled, path=next(tmp_path.glob("own.zarr.features-*.zarr")))
    tiles = tiles_with_objects(own, "train").tolist()
    missing = cache.missing(tiles)
    assert 0 < len(missing) < len(tiles)
    with pytest.raises(StoreError, match="is missing"):
        cache.read(missing[0], 0)
    before = {path: path.stat().st_mtime_ns for tile in set(tiles) - set(missing) for path in cache.files(tile)}
    again = run_warm(_command(own, tmp_path / "run", "--resume"), timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"for {len(missing)} tiles with 8 views" in again.stderr
    assert cache.missing(tiles) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for tile in tiles:
        for path, straight in zip(cache.files(tile), filled.files(tile), strict=True):
            assert path.read_bytes() == straight.read_bytes()
    assert len(read_steps(tmp_path / "run")) == 6


def test_damaged_features_give_a_one_line_error_that_names_the_file(
    own: Store, filled: FeatureCache, tmp_path: Path
) -> None:
    cache = replace(filled, path=tmp_path / filled.path.name.replace("s.zarr", "own.zarr"))
    shutil.copytree(filled.path, cache.path)
    for tile in tiles_with_objects(own, "train").tolist():
        data = bytearray(cache.files(tile)[0].read_bytes())
        for view in range(8):
            data[view * len(data) // 8 + 1000] ^= 4
        cache.files(tile)[0].write_bytes(data)
    done = run_warm(_command(own, tmp_path / "run"), timeout=60)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"bcss-train: error: {cache.path}/stride_4/c.")
    assert "is damaged; delete this file and repeat the command" in last
