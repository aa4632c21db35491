import numpy as np

from schemas.overlay import draw_overlay, side_by_side
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
