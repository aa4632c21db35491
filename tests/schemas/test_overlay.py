from dataclasses import replace

import numpy as np

from schemas.overlay import Overlay, draw_overlay, side_by_side
from schemas.store.store import Store


def test_prediction_is_tinted_and_truth_outlined_in_the_class_color(store: Store) -> None:
    record = store[0]
    prompts = list(store.prompts(0, "centroid").values())
    colors = {info.code: info.color for info in store.manifest.classes}
    plain = draw_overlay(record, prompts, colors, np.zeros_like(record.segments), side_px=256)
    tinted = draw_overlay(record, prompts, colors, record.segments, side_px=256)
    assert plain.shape == (256, 256, 3)
    changed = (plain != tinted).any(-1)
    inside = np.repeat(np.repeat(record.segments.any(0), 2, 0), 2, 1)
    assert changed[inside].mean() > 0.8
    assert not changed[~inside].any()
    for class_id in record.class_ids:
        assert (plain == colors[int(class_id)]).all(-1).sum() > 50


def test_panels_fill_rows() -> None:
    panels = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = side_by_side(panels, 2)
    assert sheet.shape == (8, 8, 3)
    assert sheet[0, 4, 0] == 20
    assert sheet[7, 7, 0] == 255


def test_predictions_that_overlap_are_outlined_and_not_tinted(store: Store) -> None:
    record = store.tile(0).record(store[0].object_ids[:1].tolist())
    twice = store[0]
    colors = {info.code: info.color for info in store.manifest.classes}
    masks = np.zeros((2, 128, 128), bool)
    masks[0, 20:80, 20:80] = masks[1, 50:110, 50:110] = True
    empty = replace(record, segments=np.zeros_like(record.segments))
    plain = draw_overlay(empty, [], colors, None, prompt_objects=[], side_px=128)
    overlay = Overlay(empty, colors, 128)
    for mask, class_id in zip(masks, twice.class_ids[:2], strict=True):
        one = replace(empty, class_ids=np.array([class_id], twice.class_ids.dtype))
        overlay.add(one, [], mask[None], prompt_objects=[])
    picture = overlay.picture()
    changed = (picture != plain).any(-1)
    assert changed[25:45, 25:45].all()
    assert changed[85:105, 85:105].all()
    # Inside the overlap the image is seen as it is, and at its border are the outlines of both.
    assert not changed[55:74, 55:74].any()
    assert changed[50, 50:80].all()
    assert changed[79, 50:80].all()
