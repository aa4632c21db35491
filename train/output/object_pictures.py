"""Draw the report's pictures of the best, the middle and the worst objects."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.overlay import draw_overlay
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.score.answers import answer_question, tile_prompts
from train.score.evaluate import Evaluation
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.tile_answer import Question

OBJECTS_SHOWN = 4
"""Number of objects under each heading."""

PICTURE_PX = 320
"""Side of a picture in pixels."""


def object_pictures(
    store: Store, evaluation: Evaluation, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol
) -> list[dict[str, Any]]:
    """Draw the best, the middle and the worst objects of the first model under the first prompt kind.

    An evaluation does not keep masks, so the model predicts these objects again.

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
    rows_of: dict[int, list[int]] = {}
    # An object of a small store may be under two headings.
    for row in sorted({int(row) for rows in chosen.values() for row in rows}):
        rows_of.setdefault(int(table.tile_index[row]), []).append(row)
    pictures: dict[int, dict[str, str]] = {}
    for tile, rows in sorted(rows_of.items()):
        drawn = _drawn_objects(store, tile, table.object_id[rows].tolist(), (model, predictors[model]), protocol)
        captions = [_caption(store, table, row, kind) for row in rows]
        for row, picture, caption in zip(rows, drawn, captions, strict=True):
            pictures[row] = {"jpeg": _jpeg(picture), "caption": caption}
    return [{"title": title, "pictures": [pictures[int(row)] for row in rows]} for title, rows in chosen.items()]


def _chosen_rows(table: ScoreTable) -> dict[str, NDArray[np.int64]]:
    """Choose the rows of the table that each heading shows."""
    order = np.argsort(table.dice, kind="stable")
    middle = max(len(order) // 2 - OBJECTS_SHOWN // 2, 0)
    return {
        "Best objects": order[::-1][:OBJECTS_SHOWN],
        "Middle objects": order[middle : middle + OBJECTS_SHOWN],
        "Worst objects": order[:OBJECTS_SHOWN],
    }


def _drawn_objects(
    store: Store, tile: int, object_ids: list[int], named: tuple[str, MaskPredictor], protocol: ScoringProtocol
) -> Iterator[NDArray[np.uint8]]:
    """Predict some objects of a tile, and draw each of them alone with its prompt, truth and predicted mask."""
    (model, predictor), kind = named, protocol.kinds[0]
    colors = {info.code: info.color for info in store.manifest.classes}
    views = predictor.views(store.tile(tile).image, all_eight=protocol.tta)
    for object_id in object_ids:
        record = store.tile(tile).record([object_id])
        prompts = tile_prompts(store, record, kind, negatives=protocol.negatives)
        question = Question.from_record(record, kind, prompts)
        answer = answer_question(predictor, model, views, question, protocol.threshold(model, kind))
        yield draw_overlay(record, prompts, colors, answer.masks, side_px=2 * PICTURE_PX)


def _caption(store: Store, table: ScoreTable, row: int, kind: PromptKind) -> str:
    """Describe the object of one row."""
    names = {info.code: info.name for info in store.manifest.classes}
    tile, class_name = int(table.tile_index[row]), names[int(table.class_id[row])]
    x, y = store.column("tiles/origin_xy")[tile].tolist()
    frame_id = store.column("tiles/frame_id")[tile]
    return f"Dice {table.dice[row]:.3f}, {class_name}, {int(table.area_px[row])} px, {kind}; {frame_id} at {x}, {y}"


def _jpeg(picture: NDArray[np.uint8]) -> str:
    """Halve a picture, and encode it as JPEG in base 64."""
    small = np.asarray(cv2.resize(picture, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
