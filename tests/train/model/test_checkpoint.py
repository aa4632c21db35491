import io
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2

from schemas.errors import CheckpointError
from train.backbone.sam2 import SAM2
from train.model.checkpoint import load_checkpoint, load_weights, save_checkpoint, trained_with
from train.model.promptable import PromptableSam


def test_pickle_under_another_name_is_checked_too(tmp_path: Path) -> None:
    """torch ignores the case of letters when it looks for the pickle, so the check must too."""

    class Huge:
        def __reduce__(self) -> Any:
            return bytearray, (10**9,)

    buffer, path = io.BytesIO(), tmp_path / "huge.pt"
    torch.save({"model": {}, "x": Huge()}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as renamed:
        for name in whole.namelist():
            renamed.writestr(name.replace("data.pkl", "DATA.PKL"), whole.read(name))
    with pytest.raises(CheckpointError, match=r"it needs .*bytearray"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "a") as twice:
        twice.writestr("archive/data.pkl", empty_pickle())
    with pytest.raises(CheckpointError, match="invalid names"):
        load_checkpoint(path)


def empty_pickle() -> bytes:
    """Return the pickle of an empty checkpoint."""
    buffer = io.BytesIO()
    torch.save({"model": {}}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def test_meta_loads_our_checkpoints_strictly(tiny: PromptableSam, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "checkpoint.pt"
    save_checkpoint(path, {"model": tiny.sam.state_dict(), "model_size": "tiny", "image_size": 128})
    theirs = build_sam2(SAM2.networks["tiny"].config_file, str(path), device="cpu").state_dict()
    for name, weight in tiny.sam.state_dict().items():
        assert torch.equal(theirs[name], weight), name
    assert trained_with(load_checkpoint(path), path) == ("tiny", 128)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_official_checkpoint_does_not_record_its_network(tiny: PromptableSam, tmp_path: Path) -> None:
    torch.save({"model": tiny.sam.state_dict()}, tmp_path / "sam2.1_hiera_tiny.pt")
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    assert trained_with(load_checkpoint(path), path) is None


def test_wrong_network_is_an_error_that_names_the_right_one(tiny: PromptableSam) -> None:
    small = PromptableSam("small", 128)
    with pytest.raises(CheckpointError, match=r"w.pt: does not fit the model small: .*missing.*; try --model tiny"):
        load_weights(small, tiny.sam.state_dict(), Path("w.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 but no more", "cannot be read"),
        (b"junk", "cannot be read"),
        (None, "does not exist"),
    ],
)
def test_error_names_the_damaged_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"c.pt: {message}"):
        load_checkpoint(path)


def test_error_names_the_truncated_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "c.pt")
    data = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "c.pt")


def test_flipped_bytes_raise_no_other_error_than_ours(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"model": {"a": torch.zeros(10)}, "steps": 3}, path)
    whole = path.read_bytes()
    failed = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_checkpoint(path)
        except CheckpointError:
            failed += 1
    assert failed > 50


def test_file_that_lacks_a_key_is_called_incomplete(tiny: PromptableSam) -> None:
    weights = tiny.sam.state_dict()
    del weights["no_mem_embed"]
    expected = r"w.pt: does not fit the model tiny: 1 missing \(no_mem_embed\); save or download it again"
    with pytest.raises(CheckpointError, match=expected):
        load_weights(tiny, weights, Path("w.pt"))


@pytest.mark.parametrize("call", [bytearray, torch.Tensor, torch.zeros])
def test_file_that_claims_huge_memory_is_refused(tmp_path: Path, call) -> None:
    class Claim:
        def __reduce__(self):
            return call, (10**12,)

    torch.save({"model": {"a": torch.zeros(1)}, "more": Claim()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c.pt: cannot be read \(it needs .*; save tensors and plain values"):
        load_checkpoint(tmp_path / "c.pt")


def test_compressed_archive_and_old_format_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt") as whole, zipfile.ZipFile(tmp_path / "z.pt", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="claims more bytes than it has"):
        load_checkpoint(tmp_path / "z.pt")
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not a file of torch.save from PyTorch 1.6 or later"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": 3}}, "holds 'a' under 'model', which is not a weight"),
        ({"model": {}, "ema": {"model": {"a": 3}}}, "holds 'a' under 'ema', which is not a weight"),
        ({"model": {5: torch.zeros(1)}}, "holds 5 under 'model', which is not a weight"),
        (
            {"model": {}, "model_size": "tiny", "image_size": 2**31},
            "invalid model_size 'tiny' or image_size 2147483648",
        ),
        ({"model": {}, "model_size": ["tiny"], "image_size": 128}, r"has an invalid model_size \['tiny'\]"),
    ],
)
def test_error_names_values_of_a_wrong_type(tmp_path: Path, content: dict[str, object], message: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "c.pt")


class _Attack:
    def __reduce__(self):
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize("content", [{"model": _Attack()}, {"model": {"a": np.float64(1)}}, [1], {"weights": {}}])
def test_checkpoint_runs_no_code(tmp_path: Path, content: object, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "attacked").exists()


def test_failed_save_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"model": {"a": torch.ones(2)}})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to write more than this, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"c.pt: cannot be written .*; free space"):
            save_checkpoint(path, {"model": {"a": torch.zeros(200_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]
    assert load_checkpoint(path)["model"]["a"].tolist() == [1, 1]


def test_flipped_bit_in_weights_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"model": {"weight": torch.arange(4096, dtype=torch.float32)}})
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor(4000.0).numpy().tobytes()) + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c.pt: cannot be read \(.*checksum of .* does not match\)"):
        load_checkpoint(path)
