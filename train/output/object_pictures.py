"""The report's pictures of the best, the middle and the worst objects."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.overlay import draw_overlay
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.score.answers import score_tiles
from train.score.evaluate import Evaluation
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.tile_answer import ScoredAnswer

OBJECTS_SHOWN = 4
"""Number of objects under each heading."""

PICTURE_PX = 320
"""Side of a picture in pixels."""


def object_pictures(
    store: Store, evaluation: Evaluation, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol
) -> list[dict[str, Any]]:
    """Draw the best, the middle and the worst objects of the first model under the first prompt kind.

    An evaluation keeps no masks, so the model predicts the tiles of these objects once more.

    Args:
        store: The store that was scored.
        evaluation: The scores of every object.
        predictors: The models by name.
        protocol: The protocol of the evaluation.

    Returns:
        `{"title": HEADING, "pictures": [{"jpeg": BASE64, "caption": TEXT}]}` for each of the three headings.
    """
    model, kind = next(iter(predictors)), protocol.kinds[0]
    table = evaluation.tables[model][kind]
    chosen = _chosen_rows(table)
    tiles = sorted({int(tile) for rows in chosen.values() for tile in table.tile_index[rows]})
    asked = replace(protocol, kinds=(kind,), baselines=(), corrections=0, tolerance_um=None)
    scored = score_tiles(store, tiles, {model: predictors[model]}, asked)
    answers = {entry.record.index: entry for entry in scored}
    return [
        {"title": title, "pictures": [_picture(store, table, int(row), kind, answers) for row in rows]}
        for title, rows in chosen.items()
    ]


def _chosen_rows(table: ScoreTable) -> dict[str, NDArray[np.int64]]:
    """Choose the rows of the table that each heading shows."""
    order = np.argsort(table.dice, kind="stable")
    middle = max(len(order) // 2 - OBJECTS_SHOWN // 2, 0)
    return {
        "Best objects": order[::-1][:OBJECTS_SHOWN],
        "Middle objects": order[middle : middle + OBJECTS_SHOWN],
        "Worst objects": order[:OBJECTS_SHOWN],
    }


def _picture(
    store: Store, table: ScoreTable, row: int, kind: PromptKind, answers: dict[int, ScoredAnswer]
) -> dict[str, str]:
    """Draw the object of one row with its prompt, truth and predicted mask."""
    found = answers[int(table.tile_index[row])]
    answer, record = found.answer, found.record
    place = int(np.flatnonzero(record.object_ids == table.object_id[row])[0])
    one = slice(place, place + 1)
    alone = replace(
        record,
        segments=record.segments[one],
        object_ids=record.object_ids[one],
        class_ids=record.class_ids[one],
        boxes_xyxy=record.boxes_xyxy[one],
    )
    colors = {info.code: info.color for info in store.manifest.classes}
    names = {info.code: info.name for info in store.manifest.classes}
    drawn = draw_overlay(alone, [answer.question.prompts[place]], colors, answer.masks[one], side_px=2 * PICTURE_PX)
    class_name = names[int(table.class_id[row])]
    caption = f"Dice {table.dice[row]:.3f}, {class_name}, {int(table.area_px[row])} px, {kind}; {record.frame_id}"
    return {"jpeg": _jpeg(drawn), "caption": f"{caption} at {record.origin_xy[0]}, {record.origin_xy[1]}"}


def _jpeg(picture: NDArray[np.uint8]) -> str:
    """Halve a picture, and encode it as JPEG in base 64."""
    small = np.asarray(cv2.resize(picture, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
