"""The page of predictions names its pictures as a URL does, and shows the color of each class."""

from __future__ import annotations

from pathlib import Path

from train.prompts.object_class import NO_CLASS_COLOR
from train.results.done_record import ImageSummary
from train.results.page import PAGE_FILE, write_page


def test_pictures_are_found_and_classes_have_their_color(tmp_path: Path) -> None:
    summary = ImageSummary(
        name="odd #1 100%",
        objects=3,
        classes={"": 2, "<b>": 1},
        empty=0,
        seconds=1.0,
        pixels=1,
        files=("odd #1 100%.overlay.jpg",),
        colors={"<b>": "#010203"},
    )
    nothing = ImageSummary(
        name="b", objects=0, classes={}, empty=0, seconds=1.0, pixels=1, files=("b.overlay.jpg",), colors={}
    )
    write_page(tmp_path, [summary, nothing])
    page = (tmp_path / PAGE_FILE).read_text()
    assert '<img src="odd%20%231%20100%25.overlay.jpg"' in page
    assert f'<i style="background: #{bytes(NO_CLASS_COLOR).hex()}"></i>2 without a class' in page
    assert '<i style="background: #010203"></i>1 &lt;b&gt;' in page
    assert "<figcaption>b: 0 objects</figcaption>" in page
