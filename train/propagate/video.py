"""Read the frames of a video file with OpenCV, which brings FFmpeg.

Axes: H and W pixels of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import SourceError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


def is_video(path: Path) -> bool:
    """Return whether a path is a file with the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def count_frames(video: Path) -> int:
    """Count the frames of a video. All of them are decoded, because some containers state only an estimate.

    Raises:
        SourceError: The file cannot be opened, has no frame, or has fewer frames than it states.
    """
    with _opened(video) as capture:
        stated, count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        while capture.grab():
            count += 1
    if not count:
        raise SourceError(video, "has no frame that can be read", "check the file")
    if count < stated:
        what = f"is damaged, or its container only estimates: it states {stated} frames, and {count} can be read"
        raise SourceError(video, what, "write its frames into a folder with `ffmpeg`, and give that folder")
    return count


def read_video(video: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video in order, each uint8 (H, W, 3), RGB, turned as the file says.

    Raises:
        SourceError: The file cannot be opened.
    """
    with _opened(video) as capture:
        while True:
            is_read, frame = capture.read()
            if not is_read:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


@contextmanager
def _opened(video: Path) -> Generator[cv2.VideoCapture]:
    # FFmpeg and OpenCV write many lines about a damaged file; the error below is one.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not capture.isOpened():
            raise SourceError(video, "cannot be read as a video", "check the file")
        yield capture
    finally:
        capture.release()
