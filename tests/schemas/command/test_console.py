import json
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from importlib.metadata import version

import pytest
from rich.text import Text

from schemas.command.console import as_markup, printable, progress_bar, run_command, show_step
from schemas.command.stage_timer import timed
from schemas.errors import SourceError


@pytest.fixture(autouse=True)
def _hook_of_threads_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


def _fail() -> None:
    raise SourceError("mask.png", "is damaged\nbadly", "export it again")


def test_expected_failure_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "build"])
    with pytest.raises(SystemExit) as stop:
        run_command(_fail, "bcss-prep")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "bcss-prep: error: mask.png: is damaged badly; export it again\n"


@pytest.mark.parametrize("command", ["raise SourceError(name, 'is damaged', 'export it')", "log.warning(name)"])
def test_escape_sequence_in_a_name_does_not_reach_the_terminal(command: str) -> None:
    code = (
        "import logging; from schemas.command.console import run_command; from schemas.errors import SourceError\n"
        "name, log = 'a\\x1b[2J\\x9b1m\\udcffé.png', logging.getLogger('prep.build')\n"
        f"def command():\n    {command}\n"
        "run_command(command, 'bcss-prep')"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False).stderr
    assert "a\ufffd[2J\ufffd1m\ufffdé.png" in printed
    assert printed.strip().isprintable()


@pytest.mark.parametrize("text", ["[/tumor]", "b[old]/s.zarr", "\\[x]", "a[red]b\x1b[0m"])
def test_text_in_markup_is_shown_letter_by_letter(text: str) -> None:
    assert Text.from_markup(f"[bold]{as_markup(text)}[/] end").plain == f"{printable(text)} end"


def test_debug_flag_shows_the_traceback_and_is_removed_from_the_arguments(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "build", "--debug"])
    with pytest.raises(SourceError):
        run_command(_fail, "bcss-prep")
    assert sys.argv == ["bcss-prep", "build"]


def test_lack_of_memory_is_reported_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def ask() -> None:
        raise MemoryError("Unable to allocate 218 TiB")

    monkeypatch.setattr(sys, "argv", ["bcss-prep", "view"])
    with pytest.raises(SystemExit):
        run_command(ask, "bcss-prep")
    said = "memory ran out (Unable to allocate 218 TiB); use fewer --workers or smaller tiles"
    assert capsys.readouterr().err == f"bcss-prep: error: {said}\n"


def test_failed_library_thread_is_logged_in_one_line(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    def command() -> None:
        thread = threading.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()

    monkeypatch.setattr(sys, "argv", ["bcss-train", "fit"])
    run_command(command, "bcss-train")
    assert [record.getMessage() for record in caplog.records] == ["a thread ended: integer division or modulo by zero"]


def test_unexpected_error_keeps_its_traceback(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep"])
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0, "bcss-prep")


def test_interrupt_while_python_ends_shows_no_traceback() -> None:
    code = (
        "import atexit, time; from schemas.command.console import run_command\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\n"
        "run_command(lambda: None, 'bcss-prep')"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGINT


def test_debug_logs_stage_times_even_if_the_command_fails(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    def fail_late() -> None:
        with timed("decode"):
            pass
        _fail()

    monkeypatch.setattr(sys, "argv", ["bcss-prep", "--debug", "build"])
    with pytest.raises(SourceError):
        run_command(fail_late, "bcss-prep")
    assert [line.split()[0] for line in caplog.messages] == ["decode", "wall"]


def test_steps_of_an_earlier_command_do_not_count_in_the_time_left() -> None:
    with progress_bar("fit", "step") as bar:
        begun = bar.start_t
        # A resumed run, and then the first steps of another one.
        shown = []
        for step in (101, 102, 1, 2):
            show_step(bar, step, 200, f"step {step}")
            shown.append((bar.initial, bar.n, bar.total, bar.postfix))
        assert bar.start_t > begun
    assert shown == [
        (101, 101, 200, "step 101"),
        (101, 102, 200, "step 102"),
        (1, 1, 200, "step 1"),
        (1, 2, 200, "step 2"),
    ]


_PROGRAM = """
import logging, sys, warnings
from schemas.command.console import progress_bar, run_command
from schemas.errors import SourceError
from schemas.command.stage_timer import timed

def command():
    with progress_bar("prepare", "ROI") as bar, timed("decode"):
        bar.update(1)
        logging.getLogger("prep.build").warning("caf\u00e9.png\\nholds nothing")
        warnings.warn("of a library")
    FAILURE

run_command(command, "bcss-prep")
"""


def _stderr_of(failure: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _PROGRAM.replace("FAILURE", failure), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("failure", "fields", "has_traceback"),
    [
        (
            "raise SourceError('mask.png', 'is damaged', 'export it again')",
            {"where": "mask.png", "what": "is damaged", "remedy": "export it again"},
            False,
        ),
        ("open('nowhere.png')", {"where": "nowhere.png", "what": "No such file or directory"}, False),
        ("1 // 0", {"where": "bcss-prep", "remedy": "report this bug"}, True),
    ],
)
def test_json_log_has_one_object_a_line_and_no_progress_bar(
    failure: str, fields: dict[str, str], has_traceback: bool
) -> None:
    code, printed = _stderr_of(failure, "--log-json", "build")
    assert code == 1
    first, second, last = [json.loads(line) for line in printed.splitlines()]
    assert (first["level"], first["logger"], first["message"]) == ("WARNING", "prep.build", "café.png\nholds nothing")
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert "of a library" in second["message"]
    assert last["level"] == "ERROR"
    assert fields.items() <= last.items()
    assert ("traceback" in last) is has_traceback


def test_json_with_debug_has_timings_and_the_traceback() -> None:
    code, printed = _stderr_of("raise SourceError('mask.png', 'is damaged', 'export it')", "--debug", "--log-json")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 1
    (timing,) = [line for line in lines if line.get("stage") == "decode"]
    assert timing["calls"] == 1
    assert timing["seconds"] >= 0
    (error,) = [line for line in lines if line["level"] == "ERROR"]
    assert "SourceError" in error["traceback"]


def test_success_in_json_ends_with_0() -> None:
    assert _stderr_of("pass", "--log-json")[0] == 0


def test_wrong_call_is_one_json_line_and_status_2() -> None:
    command = [sys.executable, "-m", "prep.cli", "build", "--size", "13", "--log-json", "src", "--out", "s.zarr"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "13 is not a multiple of 8" in json.loads(ran.stderr)["what"]


@pytest.mark.parametrize("module", ["prep.cli", "train.cli"])
def test_version_is_the_installed_one(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, version("bcss-sam2"), "")


PROGRESS = """
import sys, time
from schemas.command import console
from schemas.command.console import progress_bar, run_command
from schemas.errors import SourceError
console.LOG_EVERY_S = 0.2
def work():
    with progress_bar("fit", "step") as bar:
        bar.total = 30
        for step in range(30):
            time.sleep(0.02)
            bar.update(1)
        raise SourceError("mask.png", "is damaged", "export it again")
run_command(work, "bcss-train")
"""


def test_progress_in_a_log_file_is_a_line_now_and_then_and_an_error_is_the_last_line() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "\r" not in ran.stderr
    *progress, last = ran.stderr.splitlines()
    assert last == "bcss-train: error: mask.png: is damaged; export it again"
    assert 1 <= len(progress) <= 3
    assert all(re.fullmatch(r"fit: \d+ of 30 steps, 00:0\d done, 00:0\d left", line) for line in progress), progress


def test_fast_work_writes_no_progress_to_a_log_file() -> None:
    code = PROGRESS.replace("time.sleep(0.02)", "pass").replace("raise SourceError", "SourceError")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("flags", [[], ["--log-json"]])
def test_interrupt_is_one_line_and_status_130(flags: list[str]) -> None:
    code = (
        "import os, signal, time\n"
        "from schemas.command.console import interrupted_as_line, progress_bar, run_command\n"
        "def work():\n"
        "    with interrupted_as_line('nothing is lost'), progress_bar('fit', 'step') as bar:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(5)\n"
        "run_command(work, 'bcss-train')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert ran.returncode == 130
    (line,) = ran.stderr.splitlines()
    said = json.loads(line)["message"] if flags else line.removeprefix("bcss-train: ")
    assert said == "interrupted; nothing is lost"
