"""Fill a feature cache before training: whether it is allowed, what it costs, when it pays, and the work itself.

Every process fills its own share of the tiles. A tile that is there is not computed again, so a fill that was killed
goes on, and a cache that is whole is only read.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.store.location import is_remote
from schemas.store.store import Store
from train.config import FitConfig
from train.features.cache import FeatureCache, feature_cache
from train.model.promptable import PromptableSam
from train.runtime.device import autocast
from train.runtime.distributed import World
from train.runtime.stop import StopRequest
from train.transforms.augment import AugmentConfig
from train.transforms.geometry import orient, resize
from train.transforms.orientation import ORIENTATIONS
from train.transforms.sample import read_sample

logger = logging.getLogger(__name__)

_WRITES_AHEAD = 2

_Result = TypeVar("_Result")


def check_cacheable(model: PromptableSam, store: Store, config: FitConfig) -> None:
    """See that features of a tile never change while training goes on.

    Raises:
        ConfigError: They would, or there is no local folder beside the data.
    """
    if is_remote(store.path):
        where = f"--cache-features with {store.path}"
        raise ConfigError(where, "needs a folder beside the data", "copy the store to a local disk")
    if config.lora.rank:
        what = "keeps what a frozen image encoder gives, and --lora trains adapters in it"
        raise ConfigError("--cache-features", what, "leave one of the two out")
    for name, parameter in model.sam.image_encoder.named_parameters():
        if parameter.requires_grad:
            what = f"keeps what a frozen image encoder gives, and image_encoder.{name} is trained"
            raise ConfigError("--cache-features", what, "add --freeze decoder_only, or leave --cache-features out")
    for name, value in config.augment:
        if name != "orientation" and value != AugmentConfig.model_fields[name].default:
            what = f"keeps eight views of a tile, and augment.{name} = {value} draws others in each epoch"
            raise ConfigError("--cache-features", what, f"leave augment.{name} or --cache-features out")


def filled_features(
    model: PromptableSam,
    store: Store,
    config: FitConfig,
    tiles: Sequence[int],
    world: World,
    device: torch.device,
    stop: StopRequest,
) -> FeatureCache:
    """Make sure that the features of all tiles are there; what they take is logged before they are computed.

    Args:
        model: With its weights, on its device.
        store: The data.
        config: The run.
        tiles: Of which tiles.
        world: All processes, which share the work.
        device: Where to compute.
        stop: Whether to leave after the tile that is being computed.

    Returns:
        The cache, whole unless it was asked to stop.

    Raises:
        StoreError: The cache cannot be written, or another run fills it.
        ConfigError: The disk is too small.
    """
    cache = feature_cache(model, store, device, views=len(ORIENTATIONS) if config.augment.orientation else 1)
    # One list for all, made before anybody writes: who looks later may see what another run has written since.
    missing: list[int] = world.gather(cache.missing(tiles) if world.is_main else None)[0]
    if not missing:
        logger.info("features of all %d tiles are in %s", len(tiles), cache.path)
        return cache
    with cache.being_filled() if world.is_main else nullcontext():
        if world.is_main:
            _check_space(cache, len(missing))
        world.wait()
        encoder = _TileEncoder(model, store, config.batch_size, cache.views, device)
        _fill(encoder, cache, missing[world.rank :: world.size], stop)
        world.wait()
    return cache


class _TileEncoder:
    """Computes the views of a tile as training would: read, turned, resized, encoded in batches of its size."""

    def __init__(self, model: PromptableSam, store: Store, batch_size: int, views: int, device: torch.device) -> None:
        self.model = model
        self.store = store
        self.batch_size = batch_size
        self.views = views
        self.device = device

    def images(self, tile: int) -> Iterator[Tensor]:
        """The model's input for each view, uint8 (3, S, S)."""
        side = self.model.image_size
        sample = read_sample(self.store.tile(tile), {})
        for orientation in ORIENTATIONS[: self.views]:
            yield resize(orient(sample, orientation), side, side).image

    def encode(self, images: Tensor) -> list[Tensor]:
        """Encode uint8 (B, 3, S, S) to bfloat16 (B, side, side, C) a level, on the device."""
        with autocast(self.device):
            kept = self.model.encode_kept(images.to(self.device))
        return [values.to(torch.bfloat16) for values in kept]

    def features(self, tile: int) -> list[Tensor]:
        """Features of all views, bfloat16 (views, side, side, C) a level, in the memory of the CPU."""
        parts = [self.encode(images) for images in torch.stack(list(self.images(tile))).split(self.batch_size)]
        return [torch.cat([values.cpu() for values in of_level]) for of_level in zip(*parts, strict=True)]


def _fill(encoder: _TileEncoder, cache: FeatureCache, tiles: Sequence[int], stop: StopRequest) -> None:
    """Compute and write; while a tile is written the next one is computed."""
    writes: deque[Future[None]] = deque()
    begun, tenth = time.perf_counter(), 1
    with ThreadPoolExecutor(1) as writer:
        for number, tile in enumerate(tiles, 1):
            if stop:
                logger.warning("the feature cache is not full: the same command with --resume goes on with it")
                break
            writes.append(writer.submit(cache.write, tile, encoder.features(tile)))
            # Bounded, lest a slow disk fill the memory with what waits for it.
            while len(writes) > _WRITES_AHEAD:
                writes.popleft().result()
            if number >= tenth * len(tiles) / 10:
                left = (time.perf_counter() - begun) / number * (len(tiles) - number)
                logger.info("features of %d of %d tiles, %s left", number, len(tiles), _duration(left))
                tenth = 10 * number // len(tiles) + 1
        for write in writes:
            write.result()


def _check_space(cache: FeatureCache, missing: int) -> None:
    """Say how large the cache becomes.

    Raises:
        ConfigError: The disk has not so much left.
    """
    needed, free = missing * cache.tile_bytes, shutil.disk_usage(cache.path.parent).free
    is_smallest = all(level.form == "decoder" for level in cache.levels[:2])
    remedy = "" if is_smallest else "; --freeze sam_mask_decoder.conv_s0,sam_mask_decoder.conv_s1 too to need less"
    if needed > free:
        where = f"--cache-features in {cache.path.parent}"
        raise ConfigError(where, f"needs {_size(needed)}, and {_size(free)} are free", f"free space{remedy}")
    views, a_view = cache.views, _size(cache.view_bytes)
    needs = f"{_size(needed)} for {missing} tiles in {views} views of {a_view}"
    logger.info("%s: takes %s, and %s are free%s", cache.path, needs, _size(free), remedy)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
