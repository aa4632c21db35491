import numpy as np
import pytest

from schemas.store.store import Store
from train.score.baselines import baseline_masks, disc_radius_px, is_oracle


def test_baselines_look_at_box_and_click_alone(store: Store) -> None:
    record = store[0]
    clicks = np.array([[40, 30]] * len(record.object_ids), np.float32)
    boxes = baseline_masks("box", record, clicks, 5)
    for mask, (left, top, right, bottom) in zip(boxes, record.boxes_xyxy, strict=True):
        assert mask[top : bottom + 1, left : right + 1].all()
        assert mask.sum() == (right - left + 1) * (bottom - top + 1)
    assert baseline_masks("image", record, clicks, 5).all()
    disc = baseline_masks("disc", record, clicks, 5)[0]
    y, x = np.nonzero(disc)
    assert (np.hypot(x - 40, y - 30) <= 5).all()
    assert disc.sum() == pytest.approx(np.pi * 25, rel=0.05)


def test_disc_has_the_median_area_of_training_objects(store: Store) -> None:
    areas = store.column("objects/area_px")
    of_train = store.column("tiles/split")[store.column("objects/tile_index")] == "train"
    assert np.pi * disc_radius_px(store) ** 2 == pytest.approx(np.median(areas[of_train]))


def test_a_baseline_that_sees_more_than_the_prompt_is_an_oracle() -> None:
    assert is_oracle("box", "centroid")
    assert is_oracle("disc", "box")
    assert not is_oracle("box", "box")
    assert not is_oracle("disc", "centroid")
    assert not is_oracle("image", "box")
