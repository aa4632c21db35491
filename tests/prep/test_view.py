from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.view import SIDE_PX, write_view
from schemas.errors import StoreError
from schemas.store.store import Store


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]


def test_page_shows_existing_pictures(store: Store, tmp_path: Path) -> None:
    paths = write_view(store, tmp_path / "view", limit=5)
    assert len(paths) == 5
    page = _Page()
    page.feed((tmp_path / "view" / "index.html").read_text())
    assert page.sources == [f"tiles/{path.name}" for path in paths]
    with Image.open(paths[0]) as picture:
        assert picture.size == (SIDE_PX, SIDE_PX)
    write_view(store, tmp_path / "view", limit=2)


def test_ignored_pixels_are_hatched_and_classes_have_their_colors(store: Store, tmp_path: Path) -> None:
    index = next(record.index for record in store if record.ignore.mean() > 0.05)
    paths = write_view(store, tmp_path / "view")
    with Image.open(paths[index]) as picture:
        pixels = np.asarray(picture)
    black = (pixels == 0).all(-1)
    ignored = np.kron(store[index].ignore, np.ones((5, 5), bool))
    assert black[ignored].mean() > 0.1
    for class_id in store[index].class_ids:
        color = next(info.color for info in store.manifest.classes if info.code == class_id)
        assert (pixels == color).all(-1).sum() > 100


def test_folder_with_other_files_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StoreError, match="contains other files"):
        write_view(store, tmp_path)
