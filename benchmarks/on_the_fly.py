"""The data set that the store replaces: each sample decodes a ROI's two PNGs and derives everything again.

It is written with Pillow, OpenCV and torchvision's transforms, in the obvious way. Like the reference, it flips at the
ROI's own size and then resizes. Unlike the reference, it does so once per sample and not once per object, which makes
it faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

Image.MAX_IMAGE_PIXELS = None

IGNORED = (0, 7, 15)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OnTheFlyDataset(Dataset[dict[str, Tensor]]):
    """Samples of ROIs, each resized to a square.

    Args:
        source: A folder that contains `images/` and `masks/`.
        image_size: Side of the square in pixels.
        max_objects: Maximum objects per image.
        seed: Seed of the choice of objects.
    """

    def __init__(self, source: Path, image_size: int, max_objects: int = 3, seed: int = 0) -> None:
        self.images = sorted((source / "images").glob("*.png"))
        self.masks = sorted((source / "masks").glob("*.png"))
        self.max_objects = max_objects
        self.random = np.random.default_rng(seed)
        self.transforms = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.Resize((image_size, image_size), antialias=True),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = np.array(Image.open(self.images[index]).convert("RGB"))
        mask = np.asarray(Image.open(self.masks[index]))
        present = [int(code) for code in np.unique(mask) if code not in IGNORED]
        chosen = self.random.permutation(present)[: self.max_objects]
        segments = np.stack([mask == code for code in chosen])
        boxes, points = zip(*(_box_and_point(segment) for segment in segments), strict=True)
        sample: dict[str, Any] = {
            "image": tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
            "masks": tv_tensors.Mask(torch.from_numpy(segments)),
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(np.array(boxes)),
                format="XYXY",
                canvas_size=mask.shape,  # pyright: ignore[reportCallIssue]
            ),
            "points": tv_tensors.KeyPoints(torch.tensor(np.array(points)), canvas_size=mask.shape),  # pyright: ignore[reportCallIssue]
        }
        return self.transforms(sample)


def _box_and_point(segment: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Return the box and the centroid of the largest contour."""
    contours, _ = cv2.findContours(segment.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    x, y, width, height = cv2.boundingRect(largest)
    moments = cv2.moments(largest)
    area = moments["m00"] or 1.0
    return [x, y, x + width, y + height], [moments["m10"] / area, moments["m01"] / area]
