"""Test an S3 server that goes away for a while or for good, is slow or overloaded, or has lost its objects."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from prep.verify import verify_store
from schemas.store.location import object_store
from schemas.store.store import Store, open_store
from tests.faults.commands import (
    assert_same_weights,
    build_command,
    finish,
    fit_command,
    kill,
    one_line,
    run,
    start,
)
from tests.faults.proxy import Proxy
from tests.folders import bytes_of

obstore = pytest.importorskip("obstore", reason="the s3 extra is not installed")
pytest.importorskip("moto", reason="moto is not installed")

pytestmark = pytest.mark.timeout(1200)

BUCKET = "faults"


class Server:
    """An S3 server in its own process; after a restart, it has forgotten everything."""

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, 0
        self.start()

    def start(self) -> None:
        """Start the server with an empty bucket; after a restart, the port is the same as before."""
        with self.log.open("w") as file:
            command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(command, stderr=file, stdout=file)
        found = None
        while found is None:
            assert self.process.poll() is None, self.log.read_text()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text())
            time.sleep(0.05)
        self.port = int(found[1])
        with urlopen(Request(f"{self.url}/{BUCKET}", method="PUT")):
            pass

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop the server."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    server = Server(tmp_path / "moto.log")
    yield server
    server.stop()


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Proxy]:
    proxy = Proxy(server.url)
    for key, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    yield proxy
    proxy.stop()


URL = f"s3://{BUCKET}/s.zarr"


def _held() -> dict[str, bytes]:
    root = object_store(URL)
    names = [entry["path"] for page in obstore.list(root) for entry in page]
    return {name: bytes(obstore.get(root, name).bytes()) for name in names}


def _build(source: Path, tmp_path: Path) -> list[str]:
    return build_command(source, URL, "--workers", "1", "--work-dir", str(tmp_path / "work"))


@pytest.mark.faults
def test_server_that_is_gone_for_a_while_in_a_build(
    sample_source: Path, store: Store, tmp_path: Path, proxy: Proxy, tally
) -> None:
    for number, requests in enumerate((3, 12, 30)):
        before = proxy.requests
        process = start([*_build(sample_source, tmp_path), "--overwrite"])
        proxy.wait_for(before + requests)
        proxy.stop()
        time.sleep(1 + number)
        proxy.start()
        status, said = finish(process)
        assert status == 0, said
        assert _held() == bytes_of(store.path)
    tally("S3 server gone for 1 to 3 s in a build", tried=3, finished=3, other_bytes=0)


@pytest.mark.faults
def test_server_that_is_gone_for_good_in_a_build(
    sample_source: Path, store: Store, tmp_path: Path, proxy: Proxy, tally
) -> None:
    process = start(_build(sample_source, tmp_path))
    proxy.wait_for(8)
    proxy.stop()
    assert "cannot be reached (" in one_line(*finish(process))
    proxy.start()
    assert run(_build(sample_source, tmp_path))[0] == 0
    assert _held() == bytes_of(store.path)
    tally("S3 server gone for good in a build", tried=1, one_line=1, other_bytes=0)


@pytest.mark.faults
def test_server_that_is_slow_or_overloaded_in_a_build(
    sample_source: Path, store: Store, tmp_path: Path, proxy: Proxy, tally
) -> None:
    proxy.delay_s, proxy.refusals = 0.2, 12
    assert run(_build(sample_source, tmp_path))[0] == 0
    proxy.delay_s = 0
    assert proxy.refused == 12
    assert _held() == bytes_of(store.path)
    tally("S3 server slow by 0.2 s, answering 503 in a build", answers_503=12, finished=1, other_bytes=0)


@pytest.mark.faults
def test_server_that_forgot_what_was_uploaded(
    sample_source: Path, store: Store, tmp_path: Path, server: Server, proxy: Proxy, tally
) -> None:
    process = start(_build(sample_source, tmp_path))
    proxy.wait_for(25)
    kill(process)
    server.stop()
    server.start()
    status, said = run(_build(sample_source, tmp_path))
    assert status == 0, said
    assert verify_store(open_store(URL)) == []
    assert _held() == bytes_of(store.path)
    tally("S3 server restarted empty between two runs of a build", tried=1, finished=1, other_bytes=0)


def _upload(store: Store) -> None:
    for name, data in bytes_of(store.path).items():
        obstore.put(object_store(URL), name, data)


@pytest.mark.faults
@pytest.mark.parametrize("workers", ["0", "1"])
def test_server_that_is_gone_slow_and_overloaded_in_a_fit(
    store: Store, straight: Path, tmp_path: Path, proxy: Proxy, workers: str, tally
) -> None:
    _upload(store)
    begun = proxy.requests
    process = start(fit_command(URL, tmp_path / "run", "--workers", workers))
    proxy.wait_for(begun + 60)
    proxy.stop()
    time.sleep(2)
    proxy.refusals, proxy.delay_s = 10, 0.05
    proxy.start()
    status, said = finish(process)
    assert status == 0, said
    assert_same_weights(tmp_path / "run", straight)
    tally(f"S3 server gone for 2 s, then slow, 503; fit, {workers} workers", tried=1, finished=1, other_weights=0)


@pytest.mark.faults
def test_server_that_is_gone_for_good_in_a_fit(
    store: Store, straight: Path, tmp_path: Path, proxy: Proxy, tally
) -> None:
    _upload(store)
    process = start(fit_command(URL, tmp_path / "run"))
    # Wait until training has begun, when the run reads rows instead of columns.
    while process.poll() is None and '"grad_norm"' not in _text(tmp_path / "run" / "metrics.jsonl"):
        time.sleep(0.005)
    proxy.stop()
    said = one_line(*finish(process))
    assert re.search(rf"{URL}/\w+ row \d+: cannot be reached \(", said), said
    proxy.start()
    assert run(fit_command(URL, tmp_path / "run", "--resume"))[0] == 0
    assert_same_weights(tmp_path / "run", straight)
    tally("S3 server gone for good in a fit", tried=1, one_line=1, other_weights=0)


def _text(path: Path) -> str:
    return path.read_text(errors="ignore") if path.exists() else ""
