"""Settings of the prediction of images."""

from __future__ import annotations

from dataclasses import dataclass

from train.choices import ResultFormat
from train.predict.automatic import AutomaticOptions
from train.predict.search import OVERLAP

DEFAULT_FORMATS: tuple[ResultFormat, ...] = ("geojson", "masks", "csv", "overlay")


@dataclass(frozen=True)
class PredictSettings:
    """Settings of the prediction of images.

    Attributes:
        formats: The kinds of files to write.
        automatic: Settings of the search without prompts; None if there are prompts.
        mpp_um: Resolution that the model works at, in micrometers per pixel; None is the resolution of training, or
            that of the image if the former is not known.
        source_mpp_um: Resolution of the images in micrometers per pixel, if they state none or a wrong one.
        region: Left, top, width and height in pixels of level 0; None is the whole image.
        overlap: Share of a window that the next window also shows.
        tta: Whether logits are averaged over the eight flips and rotations.
        threshold: A pixel whose logit is above this is in the mask.
        min_area_px: Smallest area of an object in pixels of level 0.
        readers: Number of threads that read windows ahead.
        overwrite: Whether to replace results of another model, image or setting.
    """

    formats: tuple[ResultFormat, ...] = DEFAULT_FORMATS
    automatic: AutomaticOptions | None = None
    mpp_um: float | None = None
    source_mpp_um: float | None = None
    region: tuple[int, int, int, int] | None = None
    overlap: float = OVERLAP
    tta: bool = False
    threshold: float = 0.0
    min_area_px: int = 1
    readers: int = 1
    overwrite: bool = False


@dataclass(frozen=True)
class PromptOptions:
    """Settings of the prediction of prompted objects.

    Attributes:
        window_px: Side of a window in pixels of the grid.
        tta: Whether logits are averaged over the eight flips and rotations.
        threshold: A pixel whose logit is above this is in the mask.
    """

    window_px: int
    tta: bool = False
    threshold: float = 0.0
