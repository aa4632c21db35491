"""Frames in a folder become one palettized mask each, with the values of the first mask."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from schemas.errors import ConfigError, SourceError
from tests.train.sequences import drifting_mask, write_drifting
from train.cli import app
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.propagate.follow import follow
from train.propagate.frames_folder import find_frames, predict_frames


def _mask(folder: Path, ids: np.ndarray | None = None) -> Path:
    picture = Image.fromarray(drifting_mask(0, 0) if ids is None else ids)
    picture.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
    picture.save(folder / "first.png")
    return folder / "first.png"


def test_masks_have_the_values_and_the_palette_of_the_first(nano: PromptableSam, tmp_path: Path) -> None:
    folder = write_drifting(tmp_path, sequences=1, frames=3) / "images" / "s0"
    torch.save({"model": nano.sam.state_dict()}, tmp_path / "nano.pt")
    flags = ["--model", "nano", "--image-size", "128", "--first-mask", _mask(tmp_path), "--out", tmp_path / "o"]
    done = CliRunner().invoke(app, ["predict", *map(str, (tmp_path / "nano.pt", folder, *flags))])
    assert done.exit_code == 0, done.output
    assert "3 masks" in done.output
    images = [np.array(Image.open(path)) for path in find_frames(folder)]
    first = np.stack([drifting_mask(0, 0) == value for value in (1, 7)])
    for number, logits in enumerate(follow(MaskPredictor(nano, torch.device("cpu")), images, first, 3)):
        with Image.open(tmp_path / "o" / f"{number:05d}.png") as picture:
            assert picture.mode == "P"
            assert (picture.getpalette() or [])[21:24] == [7, 248, 7]
            codes = np.array(picture)
        for row, value in enumerate((1, 7)):
            np.testing.assert_array_equal(codes == value, (logits[row] > 0) & (logits[row] == logits.max(0)))
    first_frame = np.array(Image.open(tmp_path / "o" / "00000.png"))
    assert np.count_nonzero(first_frame != drifting_mask(0, 0)) < 200


def test_frames_are_sorted_by_number(tmp_path: Path) -> None:
    for name in ("f10.jpg", "f9.png", "f100.JPG", "notes.txt", "._f9.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_frames(tmp_path)] == ["f9.png", "f10.jpg", "f100.JPG"]
    (tmp_path / "g9.png").touch()
    with pytest.raises(SourceError, match=r"g9.png: has the frame number of f9.png"):
        find_frames(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("none", "is not a folder of frames"), ("empty", "has no image"), ("odd", "does not end in")]
)
def test_folders_without_frames_are_refused(tmp_path: Path, name: str, message: str) -> None:
    for folder in ("empty", "odd"):
        (tmp_path / folder).mkdir()
    (tmp_path / "odd" / "last.png").touch()
    with pytest.raises(SourceError, match=message):
        find_frames(tmp_path / name)


@pytest.mark.parametrize(
    ("ids", "message"),
    [(np.zeros((128, 128), np.uint8), "shows no object"), (np.ones((64, 128), np.uint8), "is 128 x 128 pixels, but")],
)
def test_masks_that_do_not_fit_are_refused(nano: PromptableSam, tmp_path: Path, ids: np.ndarray, message: str) -> None:
    folder = write_drifting(tmp_path, sequences=1, frames=2) / "images" / "s0"
    predictor = MaskPredictor(nano, torch.device("cpu"))
    with pytest.raises(SourceError, match=message):
        predict_frames(predictor, folder, _mask(tmp_path, ids), tmp_path / "out")


def test_results_never_replace_frames_or_masks(nano: PromptableSam, tmp_path: Path) -> None:
    source = write_drifting(tmp_path, sequences=1, frames=2)
    frames, masks = source / "images" / "s0", source / "masks" / "s0"
    first = next(iter(sorted(masks.iterdir())))
    before = {path: path.read_bytes() for folder in (frames, masks) for path in folder.iterdir()}
    for out in (frames, masks):
        with pytest.raises(ConfigError, match="holds frames or masks that results could replace; choose another --out"):
            predict_frames(MaskPredictor(nano, torch.device("cpu")), frames, first, out)
    assert {path: path.read_bytes() for folder in (frames, masks) for path in folder.iterdir()} == before


def test_flags_of_images_are_refused(tmp_path: Path) -> None:
    flags = ["--first-mask", str(tmp_path / "m.png"), "--out", str(tmp_path / "o"), "--tta"]
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "nano.pt"), str(tmp_path), *flags])
    assert done.exit_code == 2
    assert "--tta has no effect with --first-mask" in " ".join(done.output.replace("\u2502", " ").split())


def test_files_of_others_are_replaced_only_if_told(nano: PromptableSam, tmp_path: Path) -> None:
    frames = write_drifting(tmp_path, sequences=1, frames=3) / "images" / "s0"
    first, out = _mask(tmp_path), tmp_path / "o"
    predictor = MaskPredictor(nano, torch.device("cpu"))
    out.mkdir()
    (out / "00002.png").write_text("mine")
    with pytest.raises(ConfigError, match=r"00002.png: is in the way, and no earlier prediction wrote it"):
        predict_frames(predictor, frames, first, out)
    assert [path.name for path in out.iterdir()] == ["00002.png"]
    assert (out / "00002.png").read_text() == "mine"
    written = predict_frames(predictor, frames, first, out, overwrite=True)
    # The same command may be repeated.
    assert predict_frames(predictor, frames, first, out) == written
