"""Programs for shell scripts of tests that start in a forked process, without the seconds that their imports take.

`warm_commands(folder)` writes `bcss-prep`, `bcss-train` and `python` into a folder. Each hands its arguments, folder,
environment and open files to a server that has imported the libraries; the server forks, and the fork runs the program.
Only `python -c CODE` is understood. Tests of the start itself, and of signals, use the installed programs.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.warm_start import SERVER

MODULES = {"bcss-prep": "prep.cli", "bcss-train": "train.cli", "python": ""}

_PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    data = json.dumps([{module!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(data).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(data)
    sys.exit(int(server.recv(8) or 1))
"""


@contextmanager
def warm_commands(folder: Path) -> Generator[Path]:
    """Write the programs into a folder that exists, and serve them.

    Yields:
        The folder, for the front of PATH.
    """
    address = str(folder / "server")
    for name, module in MODULES.items():
        path = folder / name
        path.write_text(_PROGRAM.format(python=sys.executable, address=address, module=module))
        path.chmod(0o755)
    server = SERVER.Process(target=_serve, args=(address,))
    server.start()
    while not Path(address).exists():
        assert server.is_alive(), "the server of warm commands has not started"
        server.join(0.01)
    try:
        yield folder
    finally:
        server.terminate()
        server.join()


def _serve(address: str) -> None:
    # The forked processes keep all that was imported, so they need not look for unused objects there.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(1)
        parent = os.getppid()
        # If the tests are killed, nobody ends this server.
        while os.getppid() == parent:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            connection.setblocking(True)
            # This fork waits for the program and answers, so that the next program need not wait.
            if os.fork() == 0:
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        data += connection.recv(1 << 16)
    program = os.fork()
    if program == 0:
        module, arguments, directory, environment = json.loads(data)
        _run(module, arguments, directory, environment, files)
    _, status = os.waitpid(program, 0)
    connection.sendall(str(abs(os.waitstatus_to_exitcode(status))).encode())
    os._exit(0)


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Run the program as its entry point would, and end this process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        code = _call(module, arguments)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        # Python runs these at the end of a process, but not at the end of one that leaves with `os._exit`.
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(module: str, arguments: list[str]) -> int:
    try:
        if module:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            option, text, *rest = arguments
            assert option == "-c", "only `python -c CODE` is understood"
            sys.argv = ["-c", *rest]
            sys.path[0] = ""
            exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
            return 1
        return end.code or 0
    return 0
