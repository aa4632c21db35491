from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from prep.draw_tile import LAYERS, draw_tile
from prep.view import write_view
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
    names = [path.stem for path in paths]
    assert page.sources == [place for name in names for place in (f"tiles/{name}.png", f"thumbnails/{name}.jpg")]
    assert all((tmp_path / "view" / place).is_file() for place in page.sources)
    with Image.open(paths[0]) as picture:
        assert picture.size == (128, 128)
    write_view(store, tmp_path / "view", limit=2)


def test_ignored_pixels_are_hatched_and_segments_are_tinted_up_to_their_outline(store: Store, tmp_path: Path) -> None:
    index = next(record.index for record in store if record.ignore.mean() > 0.05)
    paths = write_view(store, tmp_path / "view")
    with Image.open(paths[index]) as picture:
        pixels = np.asarray(picture)
    record = store[index]
    assert (pixels == 0).all(-1)[record.ignore].mean() > 0.1
    for class_id, segment in zip(record.class_ids, record.segments, strict=True):
        color = next(info.color for info in store.manifest.classes if info.code == class_id)
        outlined = (pixels == color).all(-1)
        inner = cv2.erode(segment.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
        # The outline is all of the segment's border, and lies in it: a neighbor's outline is seen beside it.
        assert outlined[segment & ~inner].all()
        assert (pixels[inner] != record.image[inner]).any(-1).mean() > 0.9


def test_layers_are_drawn_on_demand(store: Store) -> None:
    tile = store.tile(0)
    colors = {info.code: info.color for info in store.manifest.classes}
    plain = draw_tile(tile, colors, ())
    seen = {layer: (draw_tile(tile, colors, (layer,)) != plain).any(-1) for layer in LAYERS}
    inside = tile.segments().any(0)
    assert seen["fill"][~inside].sum() == 0
    assert seen["outline"][~inside].sum() == 0
    assert 0 < seen["outline"].sum() < seen["fill"].sum()
    assert seen["box"].any()
    for prompt in tile.prompts("multi_point", negatives=True).values():
        for x, y in prompt["point_coords"][prompt["point_labels"] >= 0].astype(int):
            assert seen["points"][y, x]


@pytest.mark.timeout(120)
def test_page_filters_by_split_and_class_in_a_browser(store: Store, tmp_path: Path, browser) -> None:
    write_view(store, tmp_path / "view")
    page = browser.new_page()
    page.goto((tmp_path / "view" / "index.html").as_uri())
    splits = store.column("tiles/split")
    assert page.locator("figure:visible").count() == len(store)
    page.select_option("#split", "val")
    assert page.locator("figure:visible").count() == (splits == "val").sum()
    info = store.manifest.classes[0]
    page.select_option("#class", str(info.code))
    of_class = {int(i) for i in store.column("objects/tile_index")[store.column("objects/class_id") == info.code]}
    expected = sum(split == "val" and index in of_class for index, split in enumerate(splits))
    assert page.locator("figure:visible").count() == expected > 0
    assert page.locator("#shown").text_content() == f"{expected} of {len(store)} tiles"


@pytest.mark.parametrize("name", ["notes.txt", "index.html"])
def test_folder_with_other_files_is_left_alone(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match="contains other files"):
        write_view(store, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_interrupted_view_is_drawn_again(store: Store, tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_view(store, tmp_path / "view", limit=2, on_tile=interrupt)
    assert len(write_view(store, tmp_path / "view", limit=2)) == 2
    assert (tmp_path / "view" / "index.html").is_file()
