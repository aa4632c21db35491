"""Build to an S3 server that runs in another process on this machine."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from prep.build import BuildOptions, build_store
from prep.cli import main
from prep.config import BuildConfig
from prep.inspect import summarize_store
from prep.place import object_store as publish
from prep.place.object_store import LOCK_OBJECT, publish_remote
from prep.verify import verify_store
from schemas.errors import ConfigError, StoreError
from schemas.store import location
from schemas.store.location import object_store
from schemas.store.store import Store, open_store

obstore = pytest.importorskip("obstore", reason="the s3 extra is not installed")
pytest.importorskip("moto", reason="moto is not installed")

SMALL = BuildConfig(size_px=128)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The URL of a server that keeps objects in memory."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=file, stdout=file
        )
    found = None
    while found is None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        time.sleep(0.05)
    yield found[0]
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty bucket, and the environment variables that lead to it."""
    from urllib.request import Request, urlopen

    name = f"b{abs(hash(request.node.name))}"
    for key, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    with urlopen(Request(f"{server}/{name}", method="PUT")):
        return f"s3://{name}"


def test_store_in_a_bucket_is_the_one_on_disk(
    bucket: str, store: Store, sample_source: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"{bucket}/deep/down/sample.zarr"
    build_store(sample_source, url, SMALL)
    remote = open_store(url)
    assert len(remote) == len(store)
    np.testing.assert_array_equal(remote[3].image, store[3].image)
    np.testing.assert_array_equal(remote[3].segments, store[3].segments)
    assert verify_store(remote) == []
    assert summarize_store(remote).model_dump(exclude={"path"}) == summarize_store(store).model_dump(exclude={"path"})
    root = Path(store.path)
    local = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    held = {entry["path"] for page in obstore.list(object_store(url)) for entry in page}
    assert held == set(local)
    for key, content in local.items():
        assert bytes(obstore.get(object_store(url), key).bytes()) == content
    assert list(tmp_path.iterdir()) == []


def test_lock_keeps_a_second_build_out(bucket: str, sample_source: Path, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    obstore.put(object_store(url), LOCK_OBJECT, b"somebody")
    with pytest.raises(StoreError, match=rf"in use by another build; .*delete {LOCK_OBJECT}"):
        build_store(sample_source, url, SMALL, BuildOptions(work_dir=tmp_path / "work"))
    assert bytes(obstore.get(object_store(url), LOCK_OBJECT).bytes()) == b"somebody"


@pytest.mark.slow
def test_killed_build_takes_its_lock_again(bucket: str, sample_source: Path, tmp_path: Path) -> None:
    url, work = f"{bucket}/s.zarr", tmp_path / "work"
    command = [sys.executable, "-m", "prep.cli", "build", str(sample_source), "--out", url, "--size", "128"]
    process = subprocess.Popen([*command, "--workers", "1", "--work-dir", str(work)], stderr=subprocess.DEVNULL)
    while not list(work.glob("rois/*/staged.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(StoreError, match=r"no store is there|not a finished store"):
        open_store(url)
    build_store(sample_source, url, SMALL, BuildOptions(work_dir=work))
    assert verify_store(open_store(url)) == []


@pytest.mark.slow
@pytest.mark.parametrize("held_by_another", [False, True])
def test_lock_and_folder_of_a_build_killed_at_its_end_are_removed(
    bucket: str, write_roi, tmp_path: Path, held_by_another: bool
) -> None:
    url, work = f"{bucket}/s.zarr", tmp_path / "work"
    source = write_roi("TCGA-A1-A001", np.full((40, 40), 1, np.uint8))
    # Killed when the store is complete, before the lock object is removed.
    dying = (
        "import os, obstore; from prep.cli import main\n"
        "obstore.delete = lambda store, path: os.kill(os.getpid(), 9)\n"
        "main()"
    )
    command = [sys.executable, "-c", dying, "build", str(source), "--out", url, "--size", "128", "--workers", "1"]
    assert subprocess.run([*command, "--work-dir", str(work)], capture_output=True).returncode == -signal.SIGKILL
    assert work.exists()
    if held_by_another:
        obstore.put(object_store(url), LOCK_OBJECT, b"\xffsomebody")
    build_store(source, url, SMALL, BuildOptions(work_dir=work))
    assert not work.exists()
    held = {entry["path"] for page in obstore.list(object_store(url)) for entry in page}
    assert (LOCK_OBJECT in held) is held_by_another
    assert "zarr.json" in held


def test_replaced_store_is_unreadable_until_it_is_whole(bucket: str, write_roi, tmp_path: Path) -> None:
    url, work = f"{bucket}/s.zarr", BuildOptions(work_dir=tmp_path / "work")
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, work)
    with pytest.raises(StoreError, match=r"other settings .size_px was 128 and is now 64; stride_px was 128"):
        build_store(source, url, BuildConfig(size_px=64), work)
    build_store(source, url, BuildConfig(size_px=64), BuildOptions(work_dir=tmp_path / "work", overwrite=True))
    assert open_store(url)[0].image.shape == (64, 64, 3)
    assert verify_store(open_store(url)) == []


@pytest.mark.slow
def test_replaced_store_cannot_be_read_while_its_files_are_replaced(bucket: str, write_roi, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "one"))
    # Killed at its first upload.
    dying = (
        "import os, obstore; from prep.cli import main\n"
        "put = obstore.put\n"
        "obstore.put = lambda *a, **k: put(*a, **k) if 'mode' in k else os.kill(os.getpid(), 9)\n"
        "main()"
    )
    command = [sys.executable, "-c", dying, "build", str(source), "--out", url, "--size", "64", "--workers", "1"]
    ended = subprocess.run([*command, "--overwrite", "--work-dir", str(tmp_path / "two")], capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(StoreError, match="no store is there"):
        open_store(url)


@pytest.mark.parametrize("killed", [False, True])
def test_files_of_an_earlier_store_are_removed_and_other_files_stay(
    bucket: str, store: Store, write_roi, tmp_path: Path, killed: bool
) -> None:
    url, work = f"{bucket}/s.zarr", tmp_path / "work"
    root = object_store(url)
    publish_remote(Path(store.path), url, tmp_path / "publish" / "uploaded.json")
    stale = ["images/c/7/0/0/0", "objects/area_px/c/3", "checksums/key/c/1"]
    # What only a store of sequences has.
    stale += ["objects/track/c/0", "tiles/sequence/zarr.json", "tiles/frame_number/c/0"]
    foreign = ["images/roi.png", "images/c/roi.png", "notes/c/0", "c/0", "labels.txt", "prompts/zarr.json.old"]
    for name in (*stale, *foreign):
        obstore.put(root, name, b"x")
    if killed:
        # As a run with --overwrite leaves it when it has just begun to upload.
        obstore.delete(root, "zarr.json")
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, BuildOptions(work_dir=work, overwrite=not killed))
    build_store(source, tmp_path / "s.zarr", SMALL)
    local = {
        path.relative_to(tmp_path / "s.zarr").as_posix() for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()
    }
    held = {entry["path"] for page in obstore.list(root) for entry in page}
    assert held == {*local, *foreign}
    assert verify_store(open_store(url)) == []


def test_damage_in_a_bucket_is_found(bucket: str, write_roi, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "work"))
    root = object_store(url)
    obstore.delete(root, "labels/c/0/0/0")
    metadata = json.loads(bytes(obstore.get(root, "zarr.json").bytes()))
    assert "complete" in metadata["attributes"]["bcss"]
    problems = verify_store(open_store(url))
    assert ("labels/c/0/0/0", "is missing") in {(problem.where, problem.what) for problem in problems}


def test_absent_bucket_is_reported_in_one_line(bucket: str) -> None:
    with pytest.raises((StoreError, ConfigError), match=r"s3://nobody-has-this/s.zarr"):
        open_store("s3://nobody-has-this/s.zarr")


def test_damaged_store_in_a_bucket_is_replaced_only_with_overwrite(bucket: str, write_roi, tmp_path: Path) -> None:
    url, root = f"{bucket}/s.zarr", object_store(f"{bucket}/s.zarr")
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    work = tmp_path / "work"
    build_store(source, url, SMALL, BuildOptions(work_dir=work))
    metadata = json.loads(bytes(obstore.get(root, "zarr.json").bytes()))
    metadata["attributes"]["bcss"]["schema_version"] = 0
    obstore.put(root, "zarr.json", json.dumps(metadata).encode())
    with pytest.raises(StoreError, match=r"schema version 0.*give --overwrite"):
        build_store(source, url, SMALL, BuildOptions(work_dir=work))
    build_store(source, url, SMALL, BuildOptions(work_dir=work, overwrite=True))
    assert verify_store(open_store(url)) == []


@pytest.mark.parametrize("cut", [False, True], ids=["missing", "cut"])
def test_damaged_store_in_a_bucket_is_not_up_to_date(bucket: str, write_roi, tmp_path: Path, cut: bool) -> None:
    url, root, name = f"{bucket}/s.zarr", object_store(f"{bucket}/s.zarr"), "images/c/0/0/0/0"
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "work"))
    whole = bytes(obstore.get(root, name).bytes())
    if cut:
        obstore.put(root, name, whole[:-1])
    else:
        obstore.delete(root, name)
    what = f"has {len(whole) - 1} bytes, not {len(whole)}" if cut else "is missing"
    with pytest.raises(StoreError, match=rf"is damaged \({name} {what}\); give --overwrite to build it again"):
        build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "work"))
    build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "work", overwrite=True))
    assert bytes(obstore.get(root, name).bytes()) == whole


def test_missing_shard_in_a_bucket_is_an_error(bucket: str, write_roi, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    build_store(source, url, SMALL, BuildOptions(work_dir=tmp_path / "work"))
    assert open_store(url)[0].image.any()
    obstore.delete(object_store(url), "images/c/0/0/0/0")
    with pytest.raises(StoreError, match=r"s.zarr/images row 0: is missing"):
        _ = open_store(url)[0]


@pytest.mark.parametrize("command", ["inspect", "build"])
def test_silent_server_is_reported_in_one_line(
    bucket: str, write_roi, tmp_path: Path, monkeypatch, capsys, command: str
) -> None:
    # Nothing listens on port 1.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(location.RETRY, "retry_timeout", timedelta(seconds=2))
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    url = f"{bucket}/s.zarr"
    arguments = {"inspect": [url], "build": [str(source), "--out", url, "--workers", "1"]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bcss-prep", command, *arguments[command]])
    begun = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert 2 < time.monotonic() - begun < 30
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith(f"bcss-prep: error: {url}: cannot be reached (")
    assert errors[0].endswith("; check the URL, the endpoint, the network and the credentials")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.slow
@pytest.mark.parametrize("left", ["", '{"zarr.json": "4', '["labels/zarr.json"]'])
def test_half_written_record_of_uploads_is_ignored(bucket: str, store: Store, tmp_path: Path, left: str) -> None:
    record = tmp_path / "publish" / "uploaded.json"
    record.parent.mkdir()
    record.write_text(left)
    publish_remote(Path(store.path), f"{bucket}/s.zarr", record)
    assert verify_store(open_store(f"{bucket}/s.zarr")) == []
    assert len(json.loads(record.read_text())["tags"]) > 50


def test_record_is_not_written_for_each_file(bucket: str, store: Store, tmp_path: Path, monkeypatch) -> None:
    record = tmp_path / "publish" / "uploaded.json"
    written: list[int] = []
    write, put = publish.write_atomically, obstore.put
    monkeypatch.setattr(publish, "write_atomically", lambda *args: (written.append(1), write(*args)))
    monkeypatch.setattr(publish, "RECORD_EVERY_S", 3600)
    publish_remote(Path(store.path), f"{bucket}/a.zarr", record)
    assert len(written) == 1
    tags = json.loads(record.read_text())["tags"]
    assert len(tags) > 50
    # If an upload fails, the earlier ones are recorded.
    last = max(tags)

    def failing(remote: object, name: str, *content: object) -> object:
        if name == last:
            raise OSError(5, "gone")
        return put(remote, name, *content)

    monkeypatch.setattr(obstore, "put", failing)
    with pytest.raises(OSError, match="gone"):
        publish_remote(Path(store.path), f"{bucket}/b.zarr", record)
    assert json.loads(record.read_text())["tags"].keys() == tags.keys() - {last}
    # After a kill there is a record from some seconds before.
    monkeypatch.setattr(obstore, "put", put)
    monkeypatch.setattr(publish, "RECORD_EVERY_S", 0)
    publish_remote(Path(store.path), f"{bucket}/c.zarr", record)
    assert len(written) > 50


@pytest.mark.slow
def test_record_of_another_store_is_ignored(bucket: str, write_roi, tmp_path: Path) -> None:
    url, record = f"{bucket}/s.zarr", tmp_path / "publish" / "uploaded.json"
    for code in (1, 2):
        source = write_roi("a", np.full((40, 40), code, np.uint8))
        build_store(source, tmp_path / f"{code}.zarr", SMALL)
        publish_remote(tmp_path / f"{code}.zarr", url, record)
        assert verify_store(open_store(url)) == []


@pytest.mark.slow
def test_files_that_the_server_lost_are_uploaded_again(bucket: str, store: Store, tmp_path: Path) -> None:
    url, record = f"{bucket}/s.zarr", tmp_path / "publish" / "uploaded.json"
    publish_remote(Path(store.path), url, record)
    for name in ("zarr.json", "images/c/0/0/0/0"):
        obstore.delete(object_store(url), name)
    publish_remote(Path(store.path), url, record)
    assert verify_store(open_store(url)) == []


@pytest.mark.slow
def test_files_that_another_replaced_are_uploaded_again(bucket: str, store: Store, tmp_path: Path, monkeypatch) -> None:
    url, record = f"{bucket}/s.zarr", tmp_path / "publish" / "uploaded.json"
    folder = Path(shutil.copytree(store.path, tmp_path / "store"))
    # A file that is uploaded in parts has another kind of tag.
    (folder / "images" / "large").write_bytes(bytes(12_000_000))
    publish_remote(folder, url, record)
    obstore.delete(object_store(url), "zarr.json")
    obstore.put(object_store(url), "images/c/0/0/0/0", b"of another build")
    sent: list[str] = []
    put = obstore.put

    def noted(remote: object, name: str, *content: object) -> object:
        sent.append(name)
        return put(remote, name, *content)

    monkeypatch.setattr(obstore, "put", noted)
    publish_remote(folder, url, record)
    assert sent == ["images/c/0/0/0/0", "zarr.json"]
    assert verify_store(open_store(url)) == []
