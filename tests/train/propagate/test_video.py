"""A video gives the same masks as its decoded frames in a folder, and damaged videos are refused in one line."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from schemas.errors import SourceError
from tests.train.sequences import colored, drifting_mask
from train.cli import app
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.propagate.frames_folder import predict_frames
from train.propagate.video import count_frames, read_video

FRAMES = 4
CODECS = {"mp4": "mp4v", "avi": "MJPG", "mov": "mp4v", "mkv": "mp4v"}


def _video(path: Path, frames: int = FRAMES) -> Path:
    code = cv2.VideoWriter.fourcc(*CODECS[path.suffix[1:].lower()])
    writer = cv2.VideoWriter(str(path), code, 10, (128, 128))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.ascontiguousarray(colored(drifting_mask(number % 8, 0))[..., ::-1]))
    writer.release()
    return path


def _cut_video(path: Path, kept: float) -> Path:
    content = _video(path, frames=30).read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    return path


@pytest.fixture
def first_mask(tmp_path: Path) -> Path:
    Image.fromarray(drifting_mask(0, 0)).save(tmp_path / "first.png")
    return tmp_path / "first.png"


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mov", "mkv", "MP4"])
def test_frames_are_rgb_and_in_order(tmp_path: Path, suffix: str) -> None:
    video = _video(tmp_path / f"clip.{suffix}")
    assert count_frames(video) == FRAMES
    for number, frame in enumerate(read_video(video)):
        drawn = colored(drifting_mask(number, 0)).astype(int)
        others = [np.abs(frame - colored(drifting_mask(other, 0)).astype(int)).mean() for other in range(FRAMES)]
        # The codec loses some detail, but less than a swap of channels or a neighboring frame changes.
        assert np.abs(frame - drawn).mean() < 6
        assert np.argmin(others) == number


def test_video_gives_the_bytes_of_its_frames_in_a_folder(nano: PromptableSam, tmp_path: Path, first_mask: Path) -> None:
    video, folder = _video(tmp_path / "clip.mp4"), tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(read_video(video)):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    torch.save({"model": nano.sam.state_dict()}, tmp_path / "nano.pt")
    flags = ["--model", "nano", "--image-size", "128", "--first-mask", str(first_mask), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "nano.pt"), str(video), *flags])
    assert done.exit_code == 0, done.output
    assert "4 masks" in done.output
    predict_frames(MaskPredictor(nano, torch.device("cpu")), folder, first_mask, tmp_path / "p")
    names = [f"{number:05d}.png" for number in range(FRAMES)]
    assert sorted(path.name for path in (tmp_path / "o").glob("*.png")) == names
    assert [(tmp_path / "o" / name).read_bytes() for name in names] == [
        (tmp_path / "p" / name).read_bytes() for name in names
    ]


@pytest.mark.parametrize(
    ("suffix", "kept", "message"),
    [
        ("mp4", 0.6, "cannot be read as a video"),
        ("avi", 0.0, "cannot be read as a video"),
        (
            "avi",
            0.6,
            r"is damaged, .*: it states 30 frames, and \d+ can be read; write its frames into a folder",
        ),
        ("mkv", 0.6, r"is damaged, .* it states 30 frames, and \d+ can be read"),
    ],
)
def test_damaged_videos_are_refused(tmp_path: Path, suffix: str, kept: float, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        count_frames(_cut_video(tmp_path / f"clip.{suffix}", kept))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_ffmpeg_and_opencv_write_no_lines_of_their_own(tmp_path: Path, suffix: str) -> None:
    """The test needs a fresh process, because FFmpeg in this one has begun with the writer's settings."""
    video = _cut_video(tmp_path / f"clip.{suffix}", 0.6)
    code = f"import pathlib, train.propagate.video as v; v.count_frames(pathlib.Path({str(video)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("schemas.errors.SourceError: ")
    assert not [line for line in lines if "@ 0x" in line or "WARN" in line]


def test_video_without_a_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"clip\.avi: has no frame that can be read"):
        count_frames(_video(tmp_path / "clip.avi", frames=0))


def test_mask_of_another_size_is_refused(nano: PromptableSam, tmp_path: Path) -> None:
    Image.fromarray(np.ones((64, 96), np.uint8)).save(tmp_path / "first.png")
    video = _video(tmp_path / "clip.mkv")
    with pytest.raises(SourceError, match=r"clip\.mkv: is 128 x 128 pixels, but first\.png is 96 x 64"):
        predict_frames(MaskPredictor(nano, torch.device("cpu")), video, tmp_path / "first.png", tmp_path / "o")
