import os

from hypothesis import given
from hypothesis import strategies as st

from schemas.file_names import MAX_FILE_NAME_BYTES, bounded_name

_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=400)


@given(_names)
def test_name_fits_and_keeps_its_ending(stem: str) -> None:
    name = bounded_name(stem, "_x1024_y0.png")
    assert name.endswith("_x1024_y0.png")
    assert len(os.fsencode(name)) <= MAX_FILE_NAME_BYTES
    if len(os.fsencode(stem)) <= MAX_FILE_NAME_BYTES - len("_x1024_y0.png"):
        assert name == stem + "_x1024_y0.png"


def test_long_names_with_the_same_beginning_stay_apart() -> None:
    assert bounded_name("a" * 300 + "b", ".png") != bounded_name("a" * 300 + "c", ".png")
