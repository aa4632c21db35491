import numpy as np
import pytest

from train.output.captions import with_caption

PICTURE = np.full((40, 300, 3), 200, np.uint8)


@pytest.mark.parametrize("caption", ["run/best, box", "word " * 200, "one_word_without_spaces" * 30, ""])
def test_a_caption_of_any_length_stays_in_its_strip(caption: str) -> None:
    drawn = with_caption(PICTURE, caption)
    assert drawn.shape == (116, 300, 3)
    assert (drawn[:40] == PICTURE).all()
    strip = drawn[40:]
    assert (strip < 128).any() == bool(caption)
    assert (strip[:, -4:] == 255).all()
    assert (strip[-4:] == 255).all()


def test_other_captions_are_other_pixels() -> None:
    first, second = (with_caption(PICTURE, f"Dice 0.{digit}00") for digit in (1, 2))
    assert (first != second).any()
