"""Files of prompts that somebody made to break what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BcssError
from tests.faults.mutations import documents
from tests.faults.test_hostile_annotations import COCO, GEOJSON
from train.predict.window import window_of
from train.predict.window_prediction import as_prompt
from train.prompts.prompts_of_images import PromptsOfImages

COCO_BOXES = {**COCO, "annotations": [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 5, 6]}]}
CLICKS = b"image,object,x,y,label\na.png,1,3,4,1\na.png,1,9,9,0\n"
BOXES = b"image,object,x0,y0,x1,y1,class\na.png,1,3,4,9,9,tumor\n"
SIZE_XY, WINDOW_PX = (300, 200), 64


def use(path: Path) -> int:
    """Read a file of prompts, choose a window for each object, and make its prompt, as prediction does."""
    asked = PromptsOfImages.read(path).asked
    for objects in asked.values():
        for item in objects:
            window = window_of(item.extent, SIZE_XY, WINDOW_PX)
            assert window.left >= 0
            assert window.top >= 0
            coords, _ = as_prompt(item.box, item.points, WINDOW_PX)
            assert np.isfinite(np.array(coords)).all()
            assert all(0 <= value < WINDOW_PX for xy in coords for value in xy)
    return sum(map(len, asked.values()))


def _read_or_refused(path: Path) -> str:
    """Use a file, and return why it is refused; empty if it is read."""
    try:
        use(path)
    except BcssError as error:
        said = str(error)
    else:
        return ""
    assert str(path) in said
    return said


@pytest.mark.parametrize("valid", [GEOJSON, COCO_BOXES], ids=["geojson", "coco"])
def test_changed_documents_are_read_or_refused(valid: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.json"
    path.write_text(json.dumps(valid))
    assert use(path) > 0

    @settings(max_examples=150, deadline=None)
    @given(documents(valid))
    def check(document: object) -> None:
        path.write_text(json.dumps(document))
        _read_or_refused(path)

    check()


@pytest.mark.parametrize("valid", [CLICKS, BOXES], ids=["clicks", "boxes"])
def test_changed_tables_are_read_or_refused(valid: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.csv"
    path.write_bytes(valid)
    assert use(path) > 0

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(valid) - 1), st.binary(max_size=6))
    def check(place: int, inserted: bytes) -> None:
        path.write_bytes(valid[:place] + inserted + valid[place + 1 :])
        _read_or_refused(path)

    check()


@pytest.mark.parametrize("value", ["1e400", "nan", "inf", "9" * 400])
def test_numbers_that_are_not_finite_are_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"image,object,x0,y0,x1,y1\na.png,1,{value},0,{value},9\n")
    assert "line 2" in _read_or_refused(path)
