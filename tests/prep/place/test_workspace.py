import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.place.local_store import publish_local
from prep.place.workspace import PLAN_FILE, build_token, open_workspace, remove_left_over
from schemas.errors import SourceError, StoreError
from schemas.store.store import Store, open_store
from tests.folders import bytes_of

SMALL = BuildConfig(size_px=128)


def _start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prep.cli", "build", str(source), "--out", str(out), "--size", "128"]
    return subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _wait_for(work: Path, staged: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(work.glob("rois/*/staged.json"))) < staged:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("staged", [1, 4])
def test_killed_build_continues_and_ends_with_the_same_bytes(
    sample_source: Path, store: Store, tmp_path: Path, staged: int
) -> None:
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    process = _start(sample_source, out)
    _wait_for(work, staged)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    finished = {path: path.stat().st_mtime_ns for path in work.glob("rois/*/columns.npz")}
    assert staged <= len(finished) < 6
    kept: list[bool] = []
    options = BuildOptions(
        on_progress=lambda _: kept.append(all(p.stat().st_mtime_ns == t for p, t in finished.items()))
    )
    build_store(sample_source, out, SMALL, options)
    assert all(kept)
    assert len(kept) == 6
    assert bytes_of(out) == bytes_of(store.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("removed", [0, 10])
def test_folder_of_a_build_killed_at_its_end_is_removed(
    sample_source: Path, store: Store, tmp_path: Path, removed: int
) -> None:
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    # Killed after the store is in place and this many files of the working folder are removed.
    dying = (
        "import os, pathlib; from prep.cli import main\n"
        f"out, left, unlink = pathlib.Path({str(out)!r}), [0] * {removed}, os.unlink\n"
        "def die(*path, **options):\n"
        "    out.exists() and (left.pop() if left else os.kill(os.getpid(), 9))\n"
        "    unlink(*path, **options)\n"
        "os.unlink = die; main()"
    )
    command = [sys.executable, "-c", dying, "build", str(sample_source), "--out", str(out), "--size", "128"]
    assert subprocess.run([*command, "--workers", "1"], capture_output=True).returncode == -signal.SIGKILL
    assert bytes_of(out) == bytes_of(store.path)
    assert work.exists()
    with FileLock(work / "lock"):
        build_store(sample_source, out, SMALL)
        assert (work / PLAN_FILE).exists()
    build_store(sample_source, out, SMALL)
    assert list(tmp_path.iterdir()) == [out]


def test_build_killed_while_it_writes_its_plan_is_begun_again(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    work = tmp_path / "s.zarr.partial"
    work.mkdir()
    (work / "lock").touch()
    (work / f"{PLAN_FILE}.0123.partial").write_text('{"a"')
    build_store(source, tmp_path / "s.zarr", SMALL)
    assert not work.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_folder_that_was_removed_in_part_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    plan, stopped, calls = {"a": 1}, True, 0
    for calls in count():
        work = tmp_path / str(calls)
        if kept:
            work.mkdir()
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            with open_workspace(work, plan, start_again=False):
                build_token(work)
                (work / "rois" / "0").mkdir(parents=True)
                _stop_after(calls, patch)
            stopped = False
        remove_left_over(work, plan, lambda _: None)
        # A build that is killed between the last file and the folder leaves the empty folder.
        assert list(work.iterdir() if work.exists() else ()) == []
        assert work.exists() or not kept
        if not stopped:
            break
    assert calls > 5


def _stop_after(calls: int, patch: pytest.MonkeyPatch) -> None:
    """Stop removing after this many calls, as `kill -9` would."""
    left = iter(range(calls))

    def stopping(remove: Callable[..., None]) -> Callable[..., None]:
        def stop_or_remove(*path: Any, **options: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            remove(*path, **options)

        return stop_or_remove

    patch.setattr(os, "unlink", stopping(os.unlink))
    patch.setattr(os, "rmdir", stopping(os.rmdir))


def _dies_at(call: str) -> str:
    """Source of a program that runs `bcss-prep`, and is killed at the first rename of `one` to `other` for which the
    condition is true."""
    return (
        "import os, pathlib; from prep.cli import main\n"
        "rename = pathlib.Path.rename\n"
        f"die = lambda one, other: os.kill(os.getpid(), 9) if {call} else rename(one, other)\n"
        "pathlib.Path.rename = die; main()"
    )


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_store_that_a_killed_build_moved_away_is_put_back(write_roi, tmp_path: Path, overwrite: bool) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out, other = tmp_path / "s.zarr", tmp_path / "other.zarr"
    options = BuildOptions(work_dir=tmp_path / "work", overwrite=overwrite)
    build_store(source, out, SMALL)
    earlier = bytes_of(out)
    command = [sys.executable, "-c", _dies_at("one.name == 'store'"), "build", str(source), "--out", str(out)]
    command += ["--size", "64", "--workers", "1", "--overwrite", "--work-dir", str(tmp_path / "work")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    # The store is put back whatever is built next, and even if that build fails.
    write_roi("a", Image.new("RGB", (40, 40)))
    with pytest.raises((SourceError, StoreError), match=r"color|another plan"):
        build_store(source, other, SMALL, options)
    assert bytes_of(out) == earlier
    assert not other.exists()


def test_replaced_store_is_not_put_back_over_something_else(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    build_store(source, out, SMALL)
    command = [sys.executable, "-c", _dies_at("one.name == 'store'"), "build", str(source), "--out", str(out)]
    command += ["--size", "64", "--workers", "1", "--overwrite"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    out.write_text("mine")
    with pytest.raises(StoreError, match="is in the way"):
        build_store(source, out, SMALL)
    assert out.read_text() == "mine"
    out.unlink()
    with pytest.raises(StoreError, match="was built from other"):
        build_store(source, out, BuildConfig(size_px=32))
    assert open_store(out).manifest.tile_size_px == 128


def test_folder_of_another_plan_or_program_stays(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    build_store(source, out, SMALL)
    work.mkdir()
    (work / "notes").touch()
    for plan in ('{"a": 1}', "", None):
        if plan is None:
            (work / PLAN_FILE).unlink()
        else:
            (work / PLAN_FILE).write_text(plan)
        build_store(source, out, SMALL)
        assert work.exists()


def test_damaged_work_is_done_again(sample_source: Path, store: Store, tmp_path: Path) -> None:
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    process = _start(sample_source, out)
    _wait_for(work, 2)
    process.kill()
    process.wait()
    (victim,) = work.glob("rois/*-000000/images.chunks")
    victim.write_bytes(victim.read_bytes()[:-1])
    build_store(sample_source, out, SMALL)
    assert bytes_of(out) == bytes_of(store.path)


def test_build_with_other_settings_does_not_continue_an_unfinished_one(sample_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    process = _start(sample_source, out)
    _wait_for(tmp_path / "s.zarr.partial", 1)
    process.kill()
    process.wait()
    other = BuildConfig(size_px=64)
    with pytest.raises(StoreError, match=r"config.size_px was 128 and is now 64.*--overwrite to start again"):
        build_store(sample_source, out, other)
    build_store(sample_source, out, other, BuildOptions(overwrite=True))
    assert open_store(out).manifest.tile_size_px == 64


@pytest.mark.parametrize("left", [b"", b'{"tool_ver', b"[]", b"\xff"], ids=["empty", "half", "list", "bytes"])
def test_unreadable_plan_is_reported_and_replaced_with_overwrite(write_roi, tmp_path: Path, left: bytes) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", Image.new("RGB", (40, 40)))
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    with pytest.raises(SourceError, match="color"):
        build_store(source, out, SMALL)
    write_roi("b", np.full((40, 40), 1, np.uint8))
    (work / PLAN_FILE).write_bytes(left)
    with pytest.raises(
        StoreError, match=r"s.zarr.partial: contains a build whose plan cannot be read; give --overwrite to start again"
    ):
        build_store(source, out, SMALL)
    build_store(source, out, SMALL, BuildOptions(overwrite=True))
    assert len(open_store(out)) == 2
    assert not work.exists()


def test_build_with_a_changed_source_does_not_continue(write_roi, tmp_path: Path) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", Image.new("RGB", (40, 40)))
    with pytest.raises(SourceError, match="color"):
        build_store(source, tmp_path / "s.zarr", SMALL)
    write_roi("a", np.full((40, 40), 2, np.uint8))
    write_roi("b", np.full((40, 40), 2, np.uint8))
    with pytest.raises(SourceError, match=r"a.png: or its image has changed since the build began; give --overwrite"):
        build_store(source, tmp_path / "s.zarr", SMALL)
    build_store(source, tmp_path / "s.zarr", SMALL, BuildOptions(overwrite=True))
    assert [record.class_ids.tolist() for record in open_store(tmp_path / "s.zarr")] == [[2], [2]]


@pytest.mark.parametrize("changed", ["images", "masks"])
def test_shards_of_an_interrupted_build_do_not_survive_a_changed_source(
    write_roi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out, again = tmp_path / "s.zarr", BuildOptions(overwrite=True)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # At this moment the shards are joined.
        patched.setattr("prep.write.assemble.create_array", stop)
        with pytest.raises(KeyboardInterrupt):
            build_store(source, out, SMALL)
    assert list(tmp_path.glob("s.zarr.partial/shards/images/c/*/*/*/*.sha256"))
    value = np.full((40, 40, 3), 77, np.uint8) if changed == "images" else np.full((40, 40), 2, np.uint8)
    Image.fromarray(value).save(source / changed / "a.png")
    build_store(source, out, SMALL, again)
    build_store(source, tmp_path / "fresh.zarr", SMALL)
    assert bytes_of(out) == bytes_of(tmp_path / "fresh.zarr")


def test_store_of_another_build_that_appeared_meanwhile_is_not_replaced(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"

    def other(_: object) -> None:
        build_store(source, out, BuildConfig(size_px=64), BuildOptions(work_dir=tmp_path / "other"))

    with pytest.raises(StoreError, match="was put there by another build while this one was running"):
        build_store(source, out, SMALL, BuildOptions(on_progress=other))
    assert open_store(out).manifest.tile_size_px == 64
    build_store(source, out, SMALL, BuildOptions(overwrite=True))
    assert open_store(out).manifest.tile_size_px == 128


def test_second_build_to_one_destination_is_refused(sample_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    process = _start(sample_source, out)
    _wait_for(tmp_path / "s.zarr.partial", 1)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="is in use by another build"):
            build_store(sample_source, out, SMALL)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0
    assert len(open_store(out)) == 54


def test_folder_of_another_program_is_never_touched(tmp_path: Path) -> None:
    work = tmp_path / "s.zarr.partial"
    work.mkdir()
    (work / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(StoreError, match="does not belong to a build"),
        open_workspace(work, {}, start_again=True),
    ):
        pytest.fail("the workspace was opened")
    assert (work / "thesis.txt").read_text() == "years of work"


def test_folder_with_a_plan_of_another_program_is_never_touched(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    work = tmp_path / "work"
    (work / "rois").mkdir(parents=True)
    (work / "plan.json").write_text("{}")
    (work / "rois" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="does not belong to a build"):
        build_store(source, tmp_path / "s.zarr", SMALL, BuildOptions(work_dir=work, overwrite=True))
    assert (work / "rois" / "thesis.txt").read_text() == "years of work"


def _fail_in(work: Path, plan: dict[str, object], *, start_again: bool) -> list[str]:
    """Start a build that prepares a ROI and then fails; return the content of its working folder."""
    found: list[str] = []
    with suppress(SourceError), open_workspace(work, plan, start_again=start_again):
        found += sorted(path.name for path in work.iterdir() if path.is_dir())
        (work / "rois" / "0").mkdir(parents=True, exist_ok=True)
        (work / "rois" / "0" / "staged.json").touch()
        raise SourceError("a", "fails", "repair it")
    return found


def test_starting_again_removes_the_work_of_a_build_and_nothing_else(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert _fail_in(work, {"a": 1}, start_again=False) == []
    (work / "notes").mkdir()
    assert _fail_in(work, {"a": 1}, start_again=False) == ["notes", "rois"]
    assert _fail_in(work, {"a": 2}, start_again=True) == ["notes"]


def test_worker_that_still_writes_does_not_hinder_the_end_of_a_build(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with open_workspace(work, {}, start_again=False):
        (work / "rois" / "0").mkdir(parents=True)
        loop = ["sh", "-c", 'i=0; while : > "rois/0/$i"; do i=$((i + 1)); done']
        worker = subprocess.Popen(loop, cwd=work, stderr=subprocess.DEVNULL)
        while not (work / "rois" / "0" / "1000").exists():
            assert worker.poll() is None
    assert worker.wait(30) != 0
    assert not work.exists()


def test_starting_again_keeps_work_of_the_same_plan(tmp_path: Path) -> None:
    work = tmp_path / "work"
    _fail_in(work, {"a": (1, 2)}, start_again=True)
    assert _fail_in(work, {"a": (1, 2)}, start_again=True) == ["rois"]


def test_interrupted_overwrite_continues(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out, options = tmp_path / "s.zarr", BuildOptions(overwrite=True)
    build_store(source, out, BuildConfig(size_px=64))
    write_roi("b", Image.new("RGB", (40, 40)))
    with pytest.raises(SourceError, match="color"):
        build_store(source, out, SMALL, options)
    (prepared,) = tmp_path.glob("s.zarr.partial/rois/*/columns.npz")
    first = prepared.stat().st_mtime_ns
    seen: list[int] = []
    write_roi("b", np.full((40, 40), 1, np.uint8))
    going_on = BuildOptions(overwrite=True, on_progress=lambda _: seen.append(prepared.stat().st_mtime_ns))
    build_store(source, out, SMALL, going_on)
    assert seen == [first] * 2
    assert open_store(out).manifest.tile_size_px == 128


def test_source_that_goes_away_is_named(write_roi, tmp_path: Path) -> None:
    write_roi("a", np.full((40, 40), 1, np.uint8))
    source = write_roi("b", np.full((40, 40), 1, np.uint8))
    gone = source / "images" / "b.png"
    options = BuildOptions(on_progress=lambda _: gone.unlink())
    with pytest.raises(StoreError, match=r"b.png: cannot be read or written \(No such file .*it continues from here"):
        build_store(source, tmp_path / "s.zarr", SMALL, options)


@pytest.fixture
def far(tmp_path: Path) -> Generator[Path]:
    """A folder on another file system than `tmp_path`."""
    places = [place for place in (Path("/dev/shm"), Path(gettempdir())) if place.is_dir()]
    others = [place for place in places if place.stat().st_dev != tmp_path.stat().st_dev]
    if not others:
        pytest.skip("there is one file system for all temporary folders here")
    with TemporaryDirectory(dir=others[0]) as folder:
        yield Path(folder)


def test_work_on_another_file_system_is_copied_into_place(write_roi, far: Path, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "new" / "s.zarr"
    build_store(source, out, SMALL, BuildOptions(work_dir=far / "work"))
    assert len(open_store(out)) == 1
    build_store(source, out, BuildConfig(size_px=64), BuildOptions(work_dir=far / "work", overwrite=True))
    assert open_store(out).manifest.tile_size_px == 64
    assert list(out.parent.iterdir()) == [out]
    assert list(far.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True])
def test_copy_of_a_killed_build_on_another_file_system_is_removed(
    write_roi, far: Path, tmp_path: Path, earlier: bool
) -> None:
    source = write_roi("TCGA-A1-A001", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "new" / "s.zarr"
    options = BuildOptions(work_dir=far / "work", overwrite=True)
    if earlier:
        build_store(source, out, BuildConfig(size_px=64), options)
    dies = _dies_at("one.parent.name == 's.zarr.arriving'")
    command = [sys.executable, "-c", dies, "build", str(source), "--out", str(out), "--size", "128", "--overwrite"]
    command += ["--workers", "1", "--work-dir", str(far / "work")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert [path.name for path in out.parent.iterdir()] == ["s.zarr.arriving"]
    # The error is that the earlier store has other settings, so the store was put back first.
    with suppress(StoreError):
        build_store(source, out, SMALL, BuildOptions(work_dir=far / "work"))
    assert open_store(out).manifest.tile_size_px == (64 if earlier else 128)
    assert list(out.parent.iterdir()) == [out]
    build_store(source, out, SMALL, options)
    assert open_store(out).manifest.tile_size_px == 128
    assert list(out.parent.iterdir()) == [out]


def test_folder_of_another_program_beside_the_destination_is_never_touched(
    write_roi, far: Path, tmp_path: Path
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out, thesis = tmp_path / "s.zarr", tmp_path / "s.zarr.arriving" / "store" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(StoreError, match=r"s.zarr.arriving: is in the way and does not belong to a build"):
        build_store(source, out, SMALL, BuildOptions(work_dir=far / "work"))
    assert thesis.read_text() == "years of work"


def test_working_folder_that_was_there_stays_and_is_emptied(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    real, work, out = tmp_path / "scratch", tmp_path / "work", tmp_path / "s.zarr"
    real.mkdir()
    work.symlink_to(real)
    options = BuildOptions(work_dir=work)
    build_store(source, out, SMALL, options)
    build_store(source, out, SMALL, options)
    build_store(source, out, BuildConfig(size_px=64), BuildOptions(work_dir=work, overwrite=True))
    assert open_store(out).manifest.tile_size_px == 64
    write_roi("a", Image.new("RGB", (40, 40)))
    with pytest.raises(SourceError, match="color"):
        build_store(source, tmp_path / "other.zarr", SMALL, options)
    assert work.is_symlink()
    assert list(real.iterdir()) == []


@pytest.mark.slow
def test_working_folder_that_was_there_stays_after_a_kill(sample_source: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    work.mkdir()
    process = _start(sample_source, out)
    _wait_for(work, 1)
    process.kill()
    process.wait()
    (work / f"{PLAN_FILE}.0123.partial").touch()
    build_store(sample_source, out, SMALL)
    assert len(open_store(out)) == 54
    assert list(work.iterdir()) == []


def test_working_folder_may_be_a_mount_point(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    work, out = tmp_path / "work", tmp_path / "s.zarr"
    work.mkdir()
    build = [sys.executable, "-m", "prep.cli", "build", str(source), "--out", str(out), "--size", "64"]
    build = shlex.join([*build, "--workers", "1", "--work-dir", str(work)])
    place = shlex.quote(str(work))
    mounted = f"mount -t tmpfs none {place} || exit 77\n{build} > /dev/null && ls -A {place}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True)
    if "unshare" in done.stderr or done.returncode == 77:
        pytest.skip("may not mount here")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(open_store(out)) == 1


@pytest.mark.parametrize("there", [False, True], ids=["dangling", "to a store"])
def test_link_at_the_place_of_a_store_is_followed(write_roi, tmp_path: Path, there: bool) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    real, out = tmp_path / "disk" / "s.zarr", tmp_path / "s.zarr"
    out.symlink_to(real)
    if there:
        build_store(source, real, BuildConfig(size_px=64))
    build_store(source, out, SMALL, BuildOptions(overwrite=there))
    assert out.is_symlink()
    assert open_store(real).manifest.tile_size_px == 128
    assert list(real.parent.iterdir()) == [real]
    build_store(source, out, SMALL)


def test_link_in_a_circle_is_reported(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    out = tmp_path / "s.zarr"
    out.symlink_to(out)
    with pytest.raises(StoreError, match=r"s.zarr: is part of a loop of symbolic links"):
        build_store(source, out, SMALL)


def test_failed_rename_leaves_the_earlier_store(tmp_path: Path) -> None:
    earlier = tmp_path / "s.zarr"
    earlier.mkdir()
    (earlier / "zarr.json").touch()
    with pytest.raises(FileNotFoundError):
        publish_local(tmp_path / "absent", earlier, tmp_path / "replaced")
    assert (earlier / "zarr.json").exists()


def test_read_only_destination_ends_cleanly(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    with pytest.raises(StoreError, match=r"/proc/.*: cannot be read or written"):
        build_store(source, Path("/proc/bcss/s.zarr"), SMALL)


def test_full_disk_is_reported_and_the_build_can_continue(sample_source: Path, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    # The kernel refuses to write a file past the limit, as on a full disk but with another message.
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from prep.cli import main; main()"
    )
    command = [sys.executable, "-c", limited, "build", str(sample_source), "--out", str(out), "--size", "128"]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("bcss-prep: error: ")
    assert (
        "cannot be read or written (File too large); remove the cause, then repeat the command: it continues from here"
        in error
    )
    assert "Traceback" not in done.stderr
    build_store(sample_source, out, SMALL)
    assert bytes_of(out) == bytes_of(store.path)
