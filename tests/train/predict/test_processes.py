"""Several processes of `torchrun` share images: one folder, one report, one GPU for each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image

from schemas.errors import TrainingError
from schemas.store.store import Store
from tests.warm_commands import warm_commands
from train.cli import main
from train.predict import image_predictor
from train.runtime.folder_lock import locked_folder

FIRST_IS_SLOW = """
import os, time
from datetime import timedelta
from train.cli import main
from train.predict import one_image
from train.runtime import distributed
write = one_image.write_record
def wait_and_write(out, record):
    time.sleep(4 if os.environ["RANK"] == "0" else 0)
    write(out, record)
one_image.write_record = wait_and_write
distributed.TIMEOUT = timedelta(seconds=2)
main()
"""
"""The command, in which the first process takes longer for an image than processes wait for each other elsewhere."""

EVERYTHING = ["--automatic", "--grid", "2", "--iou-threshold", "0", "--stability-threshold", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def programs(module_path: Path) -> Iterator[Path]:
    """Programs that torchrun starts in the place of ours; each starts as a fork that has imported the libraries."""
    with warm_commands(module_path) as folder:
        yield folder


@pytest.fixture
def images(store: Store, tmp_path: Path) -> Path:
    """A folder of four pictures: the first process takes t0 and t2, the second one takes t1 and t3."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        Image.fromarray(store[index].image).save(folder / f"t{index}.png")
    return folder


def _torchrun(program: Sequence[object], *arguments: object) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
    command = [*run, *program, "predict", *arguments, *EVERYTHING]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)


def _as_second(monkeypatch: pytest.MonkeyPatch, of_first: object, *arguments: object) -> tuple[int, list[float]]:
    """Run the command as the second of two processes; return its exit status and its longest waits in seconds.

    Args:
        monkeypatch: Pytest's.
        of_first: What the first process gives whenever both exchange a value.
        *arguments: Arguments of `bcss-train predict`.
    """
    limits: list[float] = []

    def exchange(values: list[object], own: object) -> None:
        values[:] = [of_first, own]

    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **settings: limits.append(settings["timeout"].total_seconds())
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "barrier", lambda: None)
    monkeypatch.setattr(dist, "all_gather_object", exchange)
    monkeypatch.setattr(sys, "argv", ["bcss-train", "predict", *EVERYTHING, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return (stop.value.code if isinstance(stop.value.code, int) else 0), limits


def test_second_process_touches_nothing_if_the_first_got_no_lock(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / ".work" / "t1").mkdir(parents=True)
    (out / ".work" / "t1" / "of another run").touch()
    refused = TrainingError(out, "is in use by another run", "wait")
    status, limits = _as_second(monkeypatch, refused, checkpoint, images, "--out", out)
    assert status == 0
    # A process may need days for its slides before the others hear from it.
    assert min(limits) > 100 * 24 * 3600
    # The first process prints the error.
    assert "error:" not in capsys.readouterr().err
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["of another run"]


@pytest.mark.parametrize(("gpus", "gpu"), [(2, 1), (1, 0)])
def test_process_loads_the_model_on_its_own_gpu(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, gpu: int
) -> None:
    used: list[object] = []

    def load(_: object, device: torch.device, *__: object) -> None:
        used.append(device)
        raise TrainingError("the GPU", "is not real", "stop here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(image_predictor, "load_predictor", load)
    assert _as_second(monkeypatch, None, checkpoint, images, "--out", tmp_path / "out", "--device", "auto")[0] == 1
    assert used == [gpu, torch.device("cuda", gpu)]


@pytest.mark.slow
def test_folder_in_use_is_refused_in_one_line_by_all_processes(
    checkpoint: Path, images: Path, programs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with locked_folder(out):
        (out / ".work" / "t1" / "results").mkdir(parents=True)
        (out / ".work" / "t1" / "results" / "t1.csv").touch()
        done = _torchrun([programs / "bcss-train"], checkpoint, images, "--out", out)
        assert (out / ".work" / "t1" / "results" / "t1.csv").exists()
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "error:" in line] == [
        f"bcss-train: error: {out}: is in use by another run; wait until it ends, or choose another --out"
    ]


def _cut(path: Path) -> None:
    """Leave only the start of a picture: its header is whole, and its pixels are not."""
    path.write_bytes(path.read_bytes()[:200])


def test_damaged_images_are_reported_at_the_end_and_the_others_are_done(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    _cut(images / "t0.png")
    (images / "t2.png").write_bytes(b"nothing")
    monkeypatch.setattr(
        sys, "argv", ["bcss-train", "predict", str(checkpoint), str(images), *EVERYTHING, "--out", str(out)]
    )
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr()
    error, *lines = said.err[said.err.index("bcss-train: error:") :].splitlines()
    assert error == "bcss-train: error: predict: has 2 problems; fix them, then repeat the command"
    assert [line.split(":")[0].strip() for line in lines] == [str(images / "t0.png"), str(images / "t2.png")]
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["t1", "t3"]
    assert sorted(path.name for path in out.glob("*.geojson")) == ["t1.geojson", "t3.geojson"]
    assert (out / "index.html").read_text().count("<figure>") == 2


@pytest.mark.slow
def test_damaged_images_of_all_processes_are_reported_once(
    checkpoint: Path, images: Path, programs: Path, tmp_path: Path
) -> None:
    _cut(images / "t0.png")
    _cut(images / "t1.png")
    done = _torchrun([programs / "bcss-train"], checkpoint, images, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert [f"  {images}/t{number}.png: " in done.stderr for number in range(4)] == [True, True, False, False]
    assert sorted(line.split(":")[0] for line in done.stdout.splitlines()) == ["t2", "t3"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.geojson")) == ["t2.geojson", "t3.geojson"]


@pytest.mark.slow
def test_process_waits_for_a_slower_one_as_long_as_it_takes(
    checkpoint: Path, images: Path, programs: Path, tmp_path: Path
) -> None:
    program = (programs / "python", "-c", FIRST_IS_SLOW)
    done = _torchrun(program, checkpoint, images / "t0.png", images / "t1.png", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "index.html").read_text().count("<figure>") == 2
