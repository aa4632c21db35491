"""Predict objects in whole images from Python; images and masks are NumPy arrays.

Axes: O objects, K points, H and W pixels of the image. Coordinates are x, y.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from schemas.errors import ConfigError
from train.backbone.catalog import ModelSize
from train.model.loading import check_network, load_mask_predictor
from train.model.predictor import MaskPredictor, Prediction, View
from train.predict.automatic import AutomaticOptions
from train.predict.prompted import predict_prompted
from train.predict.search import search
from train.predict.settings import PromptOptions
from train.prompts.object_prompt import ObjectPrompt, Xy
from train.prompts.region import outside
from train.results.found_object import FoundObject
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)

Rows = Sequence[ArrayLike] | NDArray[np.generic]
"""One array of points or labels for each object."""


@dataclass(frozen=True)
class ImageMasks:
    """The objects of an image.

    Attributes:
        masks: bool (O, H, W).
        ious: float32 (O,), the model's estimates of the IoU between each mask and the true object.
        stability: float32 (O,), IoU between the masks at a higher and a lower threshold.
    """

    masks: NDArray[np.bool_]
    ious: NDArray[np.float32]
    stability: NDArray[np.float32]


class ImagePredictor(MaskPredictor):
    """A model that predicts objects in images of any size.

    `predict` takes an image with boxes and clicks. Given encoded views, it does the same as `MaskPredictor.predict`.
    """

    @property
    def window_px(self) -> int:
        """Side of the windows that the model sees: that of the training tiles, or else of the network's input."""
        return self.trained_on.tile_size_px if self.trained_on else self.model.image_size

    @overload  # type: ignore[override]
    def predict(
        self,
        views: Sequence[View],
        coords: Tensor,
        labels: Tensor,
        size_px: int | tuple[int, int] | None = None,
        mask_logits: Tensor | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        views: NDArray[np.uint8],
        *,
        boxes: ArrayLike | None = None,
        points: Rows | None = None,
        labels: Rows | None = None,
    ) -> ImageMasks: ...

    def predict(self, views: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict the objects of an image.

        Args:
            views: The image, uint8 (H, W, 3), RGB with values of 0 to 255, at the resolution of training
                (`trained_on.mpp_um`), because it is not resampled; or encoded views, see `MaskPredictor.predict`.
            *args: With encoded views, the other arguments of `MaskPredictor.predict`.
            **kwargs: Boxes, points, or both for each of the O objects. `boxes` is (O, 4): left, top, right and bottom
                as inclusive pixel indices; a part of the box must lie in the image. `points` has one array (K, 2) for
                each object: x and y as pixel indices. `labels` has one array (K,) for each object: 1 for a click on
                the object, 0 for one that is not on it; without `labels`, all clicks are on the object.

        Returns:
            The masks in the order of the boxes or points; a mask may be empty.

        Raises:
            ConfigError: The image has another type or shape. Neither boxes nor points are given, their numbers or
                shapes are wrong, an object has no box and no click on it, or a prompt lies outside the image.
        """
        if _are_views(views):
            return super().predict(views, *args, **kwargs)
        return self._predict_image(views, *args, **kwargs)

    def _predict_image(
        self,
        image: NDArray[np.uint8],
        boxes: ArrayLike | None = None,
        points: Rows | None = None,
        labels: Rows | None = None,
    ) -> ImageMasks:
        _check_image("predict", image)
        asked = _asked(boxes, points, labels)
        for item in asked:
            away = outside(item, (image.shape[1], image.shape[0]))
            if away is not None:
                what = f"got a prompt of object {item.name} outside the image, at {away[0]}, {away[1]}"
                raise ConfigError("predict", what, f"give x below {image.shape[1]} and y below {image.shape[0]}")
        grid = WorkingGrid.of(Picture(image))
        found = predict_prompted(self, grid, asked, PromptOptions(self.window_px))
        return _as_arrays(found, image.shape[0], image.shape[1])

    def automatic(self, image: NDArray[np.uint8], options: AutomaticOptions | None = None) -> ImageMasks:
        """Find all objects of an image without prompts.

        Args:
            image: uint8 (H, W, 3), RGB with values of 0 to 255, at the resolution of training.
            options: Settings of the search; None takes the defaults of SAM 2's automatic mask generator.

        Returns:
            The masks by row of windows, from top to bottom; within a row, the largest comes first.

        Raises:
            ConfigError: The image has another type or shape.
        """
        _check_image("automatic", image)
        grid = WorkingGrid.of(Picture(image))
        found = list(search(self, grid, self.window_px, options or AutomaticOptions()))
        return _as_arrays(list(found), image.shape[0], image.shape[1])


def load_predictor(
    path: Path | str,
    device: torch.device | str | None = None,
    size: ModelSize | None = None,
    image_size: int | None = None,
) -> ImagePredictor:
    """Load a checkpoint for prediction.

    Args:
        path: Path of the checkpoint. Checkpoints of this project record their network and image size; official ones do
            not.
        device: Device that the model runs on; a GPU if there is one, unless given.
        size: Network of an official checkpoint.
        image_size: Side of the input of an official checkpoint's model, in pixels; None means 1024.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the network.
        ConfigError: Neither the file nor the caller names the network, or the caller names another one than the file.
    """
    chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_mask_predictor(Path(path), chosen, size, image_size)
    check_network([loaded.model], size, image_size)
    predictor = ImagePredictor(loaded.model, chosen, loaded.weights, loaded.seen, loaded.trained_on)
    if loaded.trained_on is None:
        what = "does not state the size of its training tiles; windows of %d px are used"
        logger.info(f"%s {what}", path, predictor.window_px)
    return predictor


def _are_views(given: Any) -> bool:
    return isinstance(given, Sequence) and all(isinstance(view, View) for view in cast("Sequence[Any]", given))


def _check_image(where: str, image: Any) -> None:
    is_array = isinstance(image, np.ndarray)
    if is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return
    got = f"an array of {image.dtype}, {image.shape}" if is_array else f"a {type(image).__name__}"
    raise ConfigError(where, f"got {got}", "give the image as uint8 (H, W, 3), RGB with values of 0 to 255")


def _asked(boxes: ArrayLike | None, points: Rows | None, labels: Rows | None) -> list[ObjectPrompt]:
    if boxes is None and points is None:
        raise ConfigError("predict", "got neither boxes nor points", "give boxes=, points=, or both")
    own_boxes = None if boxes is None else _rows("boxes", boxes, 4)
    given = points if own_boxes is None else own_boxes
    assert given is not None
    count = len(given)
    if points is not None and len(points) != count:
        raise ConfigError("predict", f"got {count} boxes, but points for {len(points)} objects", "give both for each")
    if labels is not None and (points is None or len(labels) != count):
        what = f"got labels for {len(labels)} objects, but points for {0 if points is None else count}"
        raise ConfigError("predict", what, "give both for each")
    asked: list[ObjectPrompt] = []
    for number in range(count):
        box = None
        if own_boxes is not None:
            left, top, right, bottom = own_boxes[number].tolist()
            box = (left, top, right + 1, bottom + 1)
            if right < left or bottom < top:
                raise ConfigError("predict", f"got box {number} with its ends first", "give left, top, right, bottom")
        clicks = () if points is None else _clicks(number, points[number], None if labels is None else labels[number])
        item = ObjectPrompt(str(number), box, clicks)
        if box is None and not item.positive:
            raise ConfigError(
                "predict", f"got neither box nor click on object {number}", "give a box, or a click with label 1"
            )
        asked.append(item)
    return asked


def _clicks(number: int, points: ArrayLike, labels: ArrayLike | None) -> tuple[tuple[Xy, bool], ...]:
    xy = _rows(f"points of object {number}", points, 2) + 0.5
    on = np.ones(len(xy), int) if labels is None else np.asarray(labels).ravel()
    if len(on) != len(xy) or not np.isin(on, (0, 1)).all():
        what = f"got {len(xy)} points of object {number} and the labels {on.tolist()}"
        raise ConfigError("predict", what, "give a label for each, 1 on the object and 0 off it")
    return tuple(((x, y), bool(is_on)) for (x, y), is_on in zip(xy.tolist(), on.tolist(), strict=True))


def _rows(name: str, values: ArrayLike, length: int) -> NDArray[np.float64]:
    """Return finite numbers as rows of one length; a single row may be given without its outer brackets."""
    try:
        rows = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        rows = np.full(1, np.nan)
    if rows.shape == (length,) or not rows.size:
        rows = rows.reshape(-1, length)
    if rows.ndim != 2 or rows.shape[-1] != length or not np.isfinite(rows).all():
        what = f"got {name} that are not rows of {length} finite numbers"
        raise ConfigError("predict", what, f"give an array of shape (n, {length})")
    return rows


def _as_arrays(found: list[FoundObject | None], height: int, width: int) -> ImageMasks:
    masks = np.zeros((len(found), height, width), np.bool_)
    for row, item in enumerate(found):
        if item is not None:
            masks[row] = item.within((0, 0, width, height))
    ious = np.array([item.iou if item else 0 for item in found], np.float32)
    return ImageMasks(masks, ious, np.array([item.stability if item else 0 for item in found], np.float32))
