"""How images are predicted."""

from __future__ import annotations

from dataclasses import dataclass

from train.choices import ResultFormat
from train.predict.automatic import AutomaticOptions
from train.predict.search import OVERLAP

DEFAULT_FORMATS: tuple[ResultFormat, ...] = ("geojson", "masks", "csv", "overlay")


@dataclass(frozen=True)
class PredictSettings:
    """How images are predicted.

    Attributes:
        formats: The kinds of files to write.
        automatic: How objects are found without prompts; None asks for prompted objects.
        mpp_um: Resolution of the model; None takes that of training, or the image's own pixels.
        source_mpp_um: Resolution of images that do not tell it, or tell it wrongly.
        region: Left, top, width and height in pixels of level 0; None takes whole images.
        overlap: Share of a window that its neighbor shows as well.
        tta: Whether logits are averaged over the eight flips and rotations.
        threshold: A pixel whose logit is above this is in the mask.
        min_area_px: Least number of pixels of an object.
        readers: Threads that read windows ahead.
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
