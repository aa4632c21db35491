"""Build on a Dask scheduler with worker processes, all on this machine."""

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from multiprocessing import active_children
from pathlib import Path
from threading import Thread, Timer

import pytest
from PIL import Image

import prep
from prep.build import BuildOptions, build_store
from prep.cli import main
from prep.config import BuildConfig
from prep.parallel import BYTES_PER_PROCESS, CORES, TaskMap, task_map, useful_processes
from schemas.errors import ConfigError, SourceError
from schemas.store.store import Store
from tests.dask_cluster import Cluster
from tests.folders import bytes_of

pytest.importorskip("distributed", reason="the dask extra is not installed")

SMALL = BuildConfig(size_px=128)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_dask_cluster_writes_the_same_bytes_even_when_a_worker_dies(
    cluster: Cluster, sample_source: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, out = Path(os.path.relpath(sample_source)), Path("s.zarr")
    killed: list[int] = []

    def kill_one(step: object) -> None:
        if not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(cluster.workers[0].pid, signal.SIGKILL)

    build_store(source, out, SMALL, BuildOptions(dask_address=cluster.address, on_progress=kill_one))
    assert killed
    assert bytes_of(out) == bytes_of(store.path)


def test_worker_processes_log_as_their_parent_does(sample_source: Path, tmp_path: Path) -> None:
    source = tmp_path / "d"
    shutil.copytree(sample_source, source)
    image = next((source / "images").iterdir())
    with Image.open(image) as picture:
        picture.convert("RGB").save(buffer := io.BytesIO(), "JPEG")
    # An EXIF block that says it has five entries, and has one.
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0"
    jpeg = buffer.getvalue()
    image.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(cut) + 2).to_bytes(2, "big") + cut + jpeg[2:])
    command = [sys.executable, "-m", "prep.cli", "build", str(source), "--out", str(tmp_path / "s.zarr")]
    command += ["--size", "128", "--workers", "2", "--log-json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    logged = [json.loads(line) for line in ran.stderr.splitlines()]
    assert any("its metadata is faulty" in line["message"] for line in logged)


@pytest.mark.slow
def test_killed_scheduler_is_reported_in_one_line(cluster: Cluster, sample_source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prep.cli", "build", str(sample_source), "--out", str(tmp_path / "s.zarr")]
    command += ["--size", "128", "--dask", cluster.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("*/rois/*/staged.json")):
            assert process.poll() is None
            time.sleep(0.005)
        for worker in cluster.workers:
            worker.send_signal(signal.SIGSTOP)
        cluster.scheduler.kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if "error: " in line]
    assert re.search(r"the scheduler of --dask tcp://.*: has stopped, or .*; start it again, and repeat", error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_scheduler_that_dies_while_a_result_comes_is_the_same_error(cluster: Cluster) -> None:
    def lose_results() -> None:
        with task_map(1, cluster.address) as run:
            assert list(run(len, [b"workers are there"])) == [17]
            killer.start()
            while True:
                list(run(bytes, [1 << 28]))

    # A result of a quarter of a gigabyte takes long to transfer; during a transfer Dask raises another error.
    killer = Timer(0.5, cluster.scheduler.kill)
    with pytest.raises(SourceError, match=r"the scheduler of --dask tcp://.*: has stopped"):
        lose_results()
    killer.join()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("gone_s", [0.2, 3])
def test_scheduler_that_dies_between_two_rounds_is_the_same_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, gone_s: float
) -> None:
    def go_on_without() -> None:
        with task_map(1, cluster.address) as run:
            list(run(len, [b"a task"]))
            cluster.scheduler.kill()
            cluster.scheduler.wait()
            time.sleep(gone_s)
            list(run(len, [b"a task"]))

    # The client looks for the scheduler this long before it closes; meanwhile the build asks for workers.
    monkeypatch.setattr("prep.parallel.DASK_TIMEOUT_S", 2)
    monkeypatch.setattr("prep.parallel.DASK_CHECK_EVERY_S", 0.1)
    with pytest.raises(SourceError, match=r"the scheduler of --dask tcp://.*: has stopped"):
        go_on_without()


@pytest.mark.slow
def test_scheduler_without_workers_is_logged_and_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def join(_: logging.LogRecord) -> bool:
        cluster.add_worker()
        return True

    monkeypatch.setattr("prep.parallel.DASK_CHECK_EVERY_S", 0.2)
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    log = logging.getLogger("prep.parallel")
    monkeypatch.setattr(log, "filters", [join])
    with task_map(1, cluster.address) as run:
        assert list(run(len, [b"a task"])) == [6]
    # An earlier test may have switched on the log lines of Dask itself.
    said = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert said == [f"the Dask scheduler {cluster.address} has no worker; waiting for one"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_local_cluster_keeps_the_order_of_tasks() -> None:
    with task_map(2, "local") as run:
        assert list(run(str, range(20))) == [str(number) for number in range(20)]


def test_absent_scheduler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prep.parallel.DASK_TIMEOUT_S", 1)
    with (
        pytest.raises(ConfigError, match=r"--dask tcp://127.0.0.1:9: finds no scheduler"),
        task_map(1, "tcp://127.0.0.1:9"),
    ):
        pytest.fail("a scheduler answered")


def _die_at_2(task: int) -> int:
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_death_of_a_worker_names_the_task() -> None:
    with task_map(1 + 1) as run, pytest.raises(SourceError, match=r"a worker process, at [0-2] or one of the next 2"):
        list(run(_die_at_2, range(3)))


def _children(parent: int) -> set[int]:
    """The running child processes of a process."""
    numbers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(number) for number in numbers if Path(f"/proc/{number}/cmdline").read_bytes()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="/proc does not tell of processes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_with_a_build_that_is_killed(how: signal.Signals, busy: bool, tmp_path: Path) -> None:
    program = (
        "import sys, time; from prep.parallel import task_map\n"
        "if __name__ == '__main__':\n"
        "    with task_map(2) as run:\n"
        "        list(run(time.sleep, [0.5, 0.5])); print(flush=True)\n"
        f"        list(run(time.sleep, [{60 if busy else 0}] * 2)); time.sleep(60)\n"
    )
    script = tmp_path / "build.py"
    script.write_text(program)
    env = os.environ | {"PYTHONPATH": str(Path(prep.__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        workers = _children(process.pid)
        process.send_signal(how)
    assert len(workers) >= 2
    deadline = time.monotonic() + 10
    while alive := [pid for pid in workers if _runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _own_pid(_: int) -> int:
    return os.getpid()


def test_death_of_an_idle_worker_is_one_error() -> None:
    others = set(active_children())
    with task_map(1 + 1) as run:
        pid, _ = run(_own_pid, range(2))
        workers = set(active_children()) - others
        os.kill(pid, signal.SIGKILL)
        # The pool notices the death, and ends the other workers.
        while workers & set(active_children()):
            time.sleep(0.01)
        with pytest.raises(SourceError, match=r"a worker process, at 5 or one of the next 2: died"):
            list(run(_own_pid, range(5, 8)))


def test_ctrl_c_ends_no_worker_that_starts_or_is_idle() -> None:
    others = set(active_children())

    def interrupt_workers() -> None:
        while len(workers := set(active_children()) - others) < 2:
            time.sleep(0.001)
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)

    with task_map(1 + 1) as run:
        starting = Thread(target=interrupt_workers)
        starting.start()
        assert len(list(run(_own_pid, range(4)))) == 4
        starting.join()
        interrupt_workers()
        time.sleep(0.1)
        # If an idle worker had ended, the pool would be broken, and would have killed the other one.
        assert len(list(run(_own_pid, range(4)))) == 4


def test_small_sources_are_built_by_one_process(tmp_path: Path) -> None:
    def file(number: int, size: int) -> Path:
        path = tmp_path / f"{number}.png"
        with path.open("wb") as written:
            written.truncate(size)
        return path

    assert useful_processes([]) == 1
    assert useful_processes([tmp_path / "absent.png", file(0, BYTES_PER_PROCESS - 1)]) == 1
    assert useful_processes([file(1, BYTES_PER_PROCESS), file(2, BYTES_PER_PROCESS)]) == min(CORES, 2)
    assert useful_processes([file(3, 1000 * BYTES_PER_PROCESS)]) == CORES


@pytest.mark.parametrize(("flags", "wanted"), [([], 1), (["--workers", "3"], 3)])
def test_number_of_processes_follows_the_sources_unless_given(
    sample_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], wanted: int
) -> None:
    opened: list[int] = []

    def counted(workers: int, dask_address: str | None = None) -> AbstractContextManager[TaskMap]:
        opened.append(workers)
        return task_map(1, dask_address)

    monkeypatch.setattr("prep.build.task_map", counted)
    command = ["bcss-prep", "build", str(sample_source), "--out", str(tmp_path / "s.zarr"), "--size", "128", *flags]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, opened) == (0, [wanted])
