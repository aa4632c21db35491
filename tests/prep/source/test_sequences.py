"""Frames in folders: which sequence and number each has, and what is wrong with them, in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.source.discover import RoiSource
from prep.source.folders import Folders
from prep.source.sequences import find_sequences, frame_number, wrong_frames
from schemas.errors import BcssError, ConfigError
from schemas.limits import MAX_FRAME_NUMBER

FOLDERS = Folders(sequences=True)


@given(st.integers(0, MAX_FRAME_NUMBER), st.integers(0, 12), st.text().filter(lambda text: not text[-1:].isdigit()))
def test_number_is_what_the_last_digits_say(number: int, zeros: int, before: str) -> None:
    assert frame_number(f"{before}{'0' * zeros}{number}") == number


@pytest.mark.parametrize("stem", ["", "frame", "00000_left", "5.", str(MAX_FRAME_NUMBER + 1), "9" * 5000, "²", "٣"])
def test_name_without_a_usable_number_has_none(stem: str) -> None:
    assert frame_number(stem) is None


def test_digits_of_other_scripts_do_not_count() -> None:
    assert frame_number("٣7") == 7


def _frames(numbers: list[int], sequence: str = "bear") -> list[RoiSource]:
    return [
        RoiSource(f"{sequence}_{n}", Path(f"{n}.jpg"), None, sequence, "", sequence=sequence, frame_number=n)
        for n in numbers
    ]


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 12), st.randoms())
def test_even_steps_are_accepted_in_any_order(start: int, step: int, count: int, random) -> None:
    frames = _frames([start + step * place for place in range(count)])
    random.shuffle(frames)
    assert wrong_frames(frames + _frames([3, 9], "other")) == []


@given(st.integers(0, 50), st.integers(1, 9), st.integers(4, 12), st.data())
def test_a_missing_frame_is_named(start: int, step: int, count: int, data: st.DataObject) -> None:
    numbers = [start + step * place for place in range(count)]
    missing = data.draw(st.integers(1, count - 2))
    frames = _frames(numbers[:missing] + numbers[missing + 1 :])
    (problem,) = wrong_frames(frames)
    assert f"{numbers[missing + 1]}.jpg: follows frame {numbers[missing - 1]}," in str(problem)
    assert f"the frames of bear are {step} apart" in str(problem)


def test_two_frames_with_one_number_are_refused() -> None:
    frames = _frames([0, 1, 2])
    twin = RoiSource("bear_x1", Path("x1.jpg"), None, "bear", "", sequence="bear", frame_number=1)
    (problem,) = wrong_frames([*frames, twin])
    assert "x1.jpg: has the frame number 1, as 1.jpg has" in str(problem)


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_frames_are_sorted_by_sequence_and_number_and_a_sequence_is_a_patient(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"images/{name}.jpg" for name in ("b/9", "b/10", "a/f1", "a/f2", "TCGA-A1-A0SB-x/1")))
    _touch(tmp_path, *(f"masks/{name}.png" for name in ("b/9", "b/10", "a/f2")))
    data = find_sequences(tmp_path, FOLDERS)
    assert data.has_sequences
    assert [(roi.frame_id, roi.sequence, roi.frame_number, roi.patient) for roi in data.rois] == [
        ("TCGA-A1-A0SB-x_1", "TCGA-A1-A0SB-x", 1, "TCGA-A1-A0SB"),
        ("a_f1", "a", 1, "a"),
        ("a_f2", "a", 2, "a"),
        ("b_9", "b", 9, "b"),
        ("b_10", "b", 10, "b"),
    ]
    assert [roi.mask_path and roi.mask_path.name for roi in data.rois] == [None, None, "f2.png", "9.png", "10.png"]
    known = find_sequences(tmp_path, FOLDERS, {"a": "Ann", "b": "Ann", "TCGA-A1-A0SB-x": "Bob"})
    assert [roi.patient for roi in known.rois] == ["Bob", "Ann", "Ann", "Ann", "Ann"]
    with pytest.raises(ConfigError, match="--patients: does not name b; the nearest name in it is bb"):
        find_sequences(tmp_path, FOLDERS, {"a": "Ann", "bb": "Ann", "TCGA-A1-A0SB-x": "Bob"})


@pytest.mark.parametrize(
    ("files", "unpaired", "message"),
    [
        (
            ["images/0.jpg", "masks/0.png"],
            None,
            "0.jpg: lies in no folder, so its sequence is unknown; name",
        ),
        (["images/a/b/0.jpg", "masks/a/b/0.png"], None, "0.jpg: lies in a folder of folders; name it images/<sequence"),
        (["images/a/x.jpg", "masks/a/x.png"], None, "x.jpg: does not end in a frame number; name it as in 00000.jpg"),
        (["images/a/0.jpg", "masks/a/0.png", "masks/a/1.png"], None, "masks/a/1.png: has no image "),
        (["images/a/0.jpg", "images/a/1.jpg", "masks/a/0.png"], "error", "images/a/1.jpg: has no mask "),
        (["images/a/0.jpg", "masks/b/0.png"], "skip", "problems"),
        (["images/a/0.jpg", "images/a/00.jpg", "masks/a/0.png"], None, "00.jpg: has the frame number 0, as 0.jpg has"),
    ],
)
def test_bad_folders_are_named_in_one_line(tmp_path: Path, files: list[str], unpaired, message: str) -> None:
    _touch(tmp_path, *files)
    with pytest.raises(BcssError) as error:
        find_sequences(tmp_path, Folders(unpaired=unpaired, sequences=True))
    assert message in str(error.value)


def test_skip_leaves_out_frames_without_a_mask(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"images/a/{number}.jpg" for number in range(11)), *(f"masks/a/{n}.png" for n in (0, 5, 10)))
    kept = find_sequences(tmp_path, Folders(unpaired="skip", sequences=True)).rois
    assert [roi.frame_number for roi in kept] == [0, 5, 10]
