"""Two gloo processes on the CPU, which torchrun starts as it does for users."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import TrainingError
from schemas.store.store import Store, open_store
from tests.conftest import WriteRoi
from tests.warm_commands import warm_commands
from train.config import read_config
from train.fit.trainer import fit
from train.model.checkpoint import load_checkpoint
from train.runtime.distributed import World, open_world
from train.runtime.folder_lock import locked_folder
from train.runtime.run_log import read_steps

FLAGS = {
    "report": False,
    "model": "nano",
    "image_size": 128,
    "max_objects": 2,
    "optimizer.lr": 1e-4,
    "workers": 0,
    "device": "cpu",
}

SECOND_SEES_NOTHING_MISSING = """
import os
from train.cli import main
from train.features.cache import FeatureCache
if os.environ["RANK"] == "1":
    FeatureCache.missing = lambda cache, tiles: []
main()
"""
"""The command, in which only the second process finds all features.

This happens if another run writes its last features after the first process looked, and before the second did."""


LEAVE_OFTEN = """
import functools, os
import torch.distributed as dist
from train.runtime.distributed import open_world
rank, join = int(os.environ["RANK"]), dist.init_process_group
store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
for group in range(100):
    where = dist.PrefixStore(str(group), store)
    dist.init_process_group = functools.partial(join, store=where, rank=rank, world_size=2)
    with open_world("cpu") as world:
        assert world.gather(rank) == [0, 1]
"""
"""Join and leave many groups in turn. Each group gets its own store, which environment variables cannot give."""


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


def _launch(program: Sequence[str], temporary: Path) -> subprocess.Popen[bytes]:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    return subprocess.Popen(
        [*run, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # If a process is killed, its launcher leaves its temporary folder behind.
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )


@pytest.fixture(scope="module")
def programs(module_path: Path) -> Iterator[Path]:
    """Programs that torchrun starts in the place of ours; each starts as a fork that has imported the libraries."""
    with warm_commands(module_path) as folder:
        yield folder


def _torchrun(store: Store, out: Path, *flags: str, program: Sequence[object]) -> subprocess.Popen[bytes]:
    common = [
        "--out",
        str(out),
        "--model",
        "nano",
        "--image-size",
        "128",
        "--max-objects",
        "2",
        "--lr",
        "1e-4",
        "--workers",
        "0",
        "--no-report",
    ]
    return _launch([*map(str, program), "fit", store.path, *common, "--device", "cpu", *flags], out.parent)


def _fit(programs: Path) -> tuple[object, ...]:
    return "--no-python", programs / "bcss-train"


def test_two_processes_train_as_one_does(store: Store, programs: Path, tmp_path: Path) -> None:
    alone = read_config(None, {**FLAGS, "batch_size": 10, "max_steps": 8})
    fit(store, alone, tmp_path / "alone")
    process = _torchrun(store, tmp_path / "two", "--batch-size", "5", "--max-steps", "8", program=_fit(programs))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-3000:]
    one, two = read_steps(tmp_path / "alone"), read_steps(tmp_path / "two")
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        # AdamW hides a common factor on all gradients, but clipping would see it.
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-2)
        assert (a.tiles, a.images, a.objects, a.dropped) == (b.tiles, b.images, b.objects, b.dropped)
    scores = [
        load_checkpoint(tmp_path / run / "checkpoints" / "checkpoint.pt")["best_meter_values"]
        for run in ("alone", "two")
    ]
    assert scores[0]["dice_class_mean"] == pytest.approx(scores[1]["dice_class_mean"], abs=0.02)


@pytest.mark.slow
def test_two_processes_train_windows_as_one_does(sequences: Store, programs: Path, tmp_path: Path) -> None:
    """The prompts differ between windows, so each process uses parameters that the other does not."""
    windows = {"frames": 3, "prompt": "random", "corrections": 1, "corrected_frames": 2}
    alone = read_config(None, {**FLAGS, **windows, "batch_size": 4, "max_steps": 4})
    fit(sequences, alone, tmp_path / "alone")
    flags = ["--frames", "3", "--prompt", "random", "--corrections", "1", "--corrected-frames", "2"]
    flags += ["--batch-size", "2", "--max-steps", "4"]
    process = _torchrun(sequences, tmp_path / "two", *flags, program=_fit(programs))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-3000:]
    for a, b in zip(read_steps(tmp_path / "alone"), read_steps(tmp_path / "two"), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-2)
        assert (a.tiles, a.images, a.objects, a.dropped) == (b.tiles, b.images, b.objects, b.dropped)


def _nine_tiles(write_roi: WriteRoi, folder: Path) -> Store:
    labels = np.tile(np.repeat(np.array([1, 2, 3], np.uint8), 128), (384, 1))
    build_store(write_roi("TCGA-A1-A001", labels), folder / "nine.zarr", BuildConfig(size_px=128))
    return open_store(folder / "nine.zarr")


@pytest.mark.slow
def test_process_without_a_tile_joins_every_collective(write_roi: WriteRoi, programs: Path, tmp_path: Path) -> None:
    # Nine tiles in global batches of eight leave one tile, which the first process takes.
    nine = _nine_tiles(write_roi, tmp_path)
    process = _torchrun(nine, tmp_path / "run", "--batch-size", "4", "--epochs", "1", program=_fit(programs))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-3000:]
    assert [step.images for step in read_steps(tmp_path / "run")] == [8, 1]


@pytest.mark.slow
def test_processes_that_find_different_features_missing_fill_them_together(
    write_roi: WriteRoi, programs: Path, tmp_path: Path
) -> None:
    nine = _nine_tiles(write_roi, tmp_path)
    shutil.copytree(nine.path, tmp_path / "copy" / "nine.zarr")
    frozen = {"freeze": "decoder_only", "cache_features": True, "batch_size": 2, "max_steps": 6}
    fit(open_store(tmp_path / "copy" / "nine.zarr"), read_config(None, {**FLAGS, **frozen}), tmp_path / "alone")
    flags = ["--freeze", "decoder_only", "--cache-features", "--batch-size", "1", "--max-steps", "6"]
    program = ["--no-python", programs / "python", "-c", SECOND_SEES_NOTHING_MISSING]
    process = _torchrun(nine, tmp_path / "two", *flags, program=program)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-3000:]
    for a, b in zip(read_steps(tmp_path / "alone"), read_steps(tmp_path / "two"), strict=True):
        assert a.tiles == b.tiles
        assert a.loss == pytest.approx(b.loss, rel=1e-3)


def test_second_process_ends_quietly_if_the_first_got_no_lock(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = TrainingError(tmp_path / "run", "is in use by another run", "wait")

    def exchange(values: list[object], own: object) -> None:
        values[:] = [refused, own]

    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "all_gather_object", exchange)
    with pytest.raises(SystemExit, match=r"^0$"):
        fit(store, read_config(None, FLAGS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folder_in_use_is_refused_in_one_line(store: Store, programs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with locked_folder(out):
        process = _torchrun(store, out, program=_fit(programs))
        _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert [line for line in said.decode().splitlines() if "error:" in line or "[rank" in line] == [
        f"bcss-train: error: {out}: is in use by another run; wait until it ends, or choose another --out"
    ]


@pytest.mark.slow
def test_killed_rank_ends_the_job_and_the_run_can_be_resumed(store: Store, programs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--batch-size", "1", "--max-steps", "30", "--save-every-steps", "2"]
    process = _torchrun(store, out, *flags, program=("-m", "train.cli"))
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"grad_norm"') < 4:
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = [child for child in children if b"train.cli" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(ranks) == 2
    os.kill(int(ranks[1]), signal.SIGKILL)
    process.communicate(timeout=90)
    assert process.returncode != 0
    done = load_checkpoint(out / "checkpoints" / "checkpoint.pt")["steps"]
    flags = ["--batch-size", "1", "--max-steps", str(done + 2), "--resume"]
    again = _torchrun(store, out, *flags, program=_fit(programs))
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()[-3000:]
    assert load_checkpoint(out / "checkpoints" / "checkpoint.pt")["steps"] == done + 2


@pytest.mark.slow
def test_processes_can_leave_their_group_many_times(programs: Path, tmp_path: Path) -> None:
    # Up to torch 2.7, the group was freed while the interpreter's lock was held, and a thread of the group needed that
    # lock to release the last collective. The process then hung, in this test after a few groups.
    process = _launch(["--no-python", str(programs / "python"), "-c", LEAVE_OFTEN], tmp_path)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()[-3000:]


@pytest.mark.parametrize(("gpus", "backend", "gpu"), [(2, "cpu:gloo,cuda:nccl", 1), (1, "gloo", 0)])
def test_only_tensors_on_gpus_of_their_own_go_by_nccl(
    monkeypatch: pytest.MonkeyPatch, gpus: int, backend: str, gpu: int
) -> None:
    # Without a GPU this can check which backend is chosen, and that the summed numbers are in CPU memory.
    asked: list[str] = []
    summed: list[torch.Tensor] = []
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: asked.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "all_reduce", summed.append)
    with open_world("cuda") as world, torch.device("meta"):
        world.sum([1.0, 2.0])
    assert (asked, world) == ([backend], World(1, 2, gpu))
    assert [tensor.device.type for tensor in summed] == ["cpu"]
    with open_world("cpu"):
        assert asked[1:] == ["gloo"]


@pytest.mark.cuda
def test_two_processes_share_one_gpu(store: Store, tmp_path: Path, cuda: torch.device) -> None:
    fit(store, read_config(None, {**FLAGS, "batch_size": 10, "max_steps": 4, "device": cuda.type}), tmp_path / "alone")
    flags = ["--batch-size", "5", "--max-steps", "4", "--device", cuda.type]
    process = _torchrun(store, tmp_path / "two", *flags, program=("-m", "train.cli"))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-3000:]
    one, two = read_steps(tmp_path / "alone"), read_steps(tmp_path / "two")
    assert [step.tiles for step in one] == [step.tiles for step in two]
    for a, b in zip(one, two, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=0.01)
