"""Fill a feature cache before training: check that it is allowed, check the disk space, and compute the features.

Every process computes its own share of the tiles. Tiles that are already in the cache are not computed again, so a fill
that was killed continues where it stopped, and a cache that is complete is only read.
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
"""Number of tiles that may wait to be written while the next one is computed."""

_Result = TypeVar("_Result")


def check_cacheable(model: PromptableSam, store: Store, config: FitConfig) -> None:
    """Check that the features of a tile stay the same during the whole training.

    Args:
        model: The model; its parameters say what is trained.
        store: The data.
        config: The configuration of the run.

    Raises:
        ConfigError: The features would change, or the data are not in a local folder.
    """
    if is_remote(store.path):
        where = f"--cache-features with {store.path}"
        raise ConfigError(where, "needs a folder beside the data", "copy the store to a local disk")
    if config.lora.rank:
        what = "needs a frozen image encoder, but --lora trains adapters in it"
        raise ConfigError("--cache-features", what, "leave one of the two out")
    encoder = model.backbone.encoder
    for name, parameter in model.sam.get_submodule(encoder).named_parameters():
        if parameter.requires_grad:
            what = f"needs a frozen image encoder, but {encoder}.{name} is trained"
            raise ConfigError("--cache-features", what, "add --freeze decoder_only, or leave --cache-features out")
    for name, value in config.augment:
        if name != "orientation" and value != AugmentConfig.model_fields[name].default:
            what = f"needs the same views of a tile in every epoch, but augment.{name} = {value} changes them"
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
    """Compute the features of all tiles that are not in the cache yet.

    The size of the features is logged before they are computed.

    Args:
        model: The model with its weights, on its device.
        store: The data.
        config: The configuration of the run.
        tiles: Indices of the tiles whose features are needed.
        world: The processes that share the work.
        device: The device that computes the features.
        stop: A request to stop after the tile that is being computed.

    Returns:
        The cache; it is complete unless a stop was requested.

    Raises:
        StoreError: The cache cannot be written, or another run is filling it.
        ConfigError: The disk has too little free space.
    """
    cache = feature_cache(model, store, device, views=len(ORIENTATIONS) if config.augment.orientation else 1)
    # The main process makes one list for all processes before any of them writes. A process that made its own list
    # later could see tiles that another process or run has written in the meantime.
    missing: list[int] = world.gather(cache.missing(tiles) if world.is_main else None)[0]
    if not missing:
        logger.info("features of all %d tiles are in %s", len(tiles), cache.path)
        return cache
    with cache.being_filled() if world.is_main else nullcontext():
        if world.is_main:
            _check_space(model, cache, len(missing))
        world.wait()
        encoder = _TileEncoder(model, store, config.batch_size, cache.views, device)
        _fill(encoder, cache, missing[world.rank :: world.size], stop)
        world.wait()
    return cache


class _TileEncoder:
    """Computes the features of a tile as training would: reads the tile, turns and resizes it, and encodes the views.

    Args:
        model: The model with its weights, on its device.
        store: The data.
        batch_size: Number of views that are encoded at once.
        views: Number of orientations of each tile.
        device: The device that computes the features.
    """

    def __init__(self, model: PromptableSam, store: Store, batch_size: int, views: int, device: torch.device) -> None:
        self.model = model
        self.store = store
        self.batch_size = batch_size
        self.views = views
        self.device = device

    def images(self, tile: int) -> Iterator[Tensor]:
        """Yield the model's input for each view, uint8 (3, S, S)."""
        side = self.model.image_size
        sample = read_sample(self.store.tile(tile), {})
        for orientation in ORIENTATIONS[: self.views]:
            yield resize(orient(sample, orientation), side, side).image

    def encode(self, images: Tensor) -> list[Tensor]:
        """Encode images uint8 (B, 3, S, S) to one tensor per level, bfloat16 (B, side, side, C), on the device."""
        with autocast(self.device):
            kept = self.model.encode_kept(images.to(self.device))
        return [values.to(torch.bfloat16) for values in kept]

    def features(self, tile: int) -> list[Tensor]:
        """Compute the features of all views: one tensor per level, bfloat16 (views, side, side, C), on the CPU."""
        parts = [self.encode(images) for images in torch.stack(list(self.images(tile))).split(self.batch_size)]
        return [torch.cat([values.cpu() for values in level]) for level in zip(*parts, strict=True)]


def _fill(encoder: _TileEncoder, cache: FeatureCache, tiles: Sequence[int], stop: StopRequest) -> None:
    """Compute the features of tiles and write them; one tile is written while the next one is computed."""
    writes: deque[Future[None]] = deque()
    begun, next_tenth = time.perf_counter(), 1
    with ThreadPoolExecutor(1) as writer:
        for number, tile in enumerate(tiles, 1):
            if stop:
                logger.warning("the feature cache is not complete; run the same command with --resume to continue")
                break
            writes.append(writer.submit(cache.write, tile, encoder.features(tile)))
            # Limit how many tiles wait to be written, because a slow disk could otherwise fill the memory with them.
            while len(writes) > _WRITES_AHEAD:
                writes.popleft().result()
            if number >= next_tenth * len(tiles) / 10:
                left_s = (time.perf_counter() - begun) / number * (len(tiles) - number)
                logger.info("features of %d of %d tiles computed, %s left", number, len(tiles), _duration(left_s))
                next_tenth = 10 * number // len(tiles) + 1
        for write in writes:
            write.result()


def _check_space(model: PromptableSam, cache: FeatureCache, missing: int) -> None:
    """Log how much space the missing tiles need, and check that the disk has it.

    Args:
        model: The model, whose decoder's own layers make the features smaller if they are frozen.
        cache: The cache.
        missing: Number of tiles to compute.

    Raises:
        ConfigError: The disk has too little free space.
    """
    needed, free = missing * cache.tile_bytes, shutil.disk_usage(cache.path.parent).free
    layers = zip(cache.levels, model.backbone.level_layers, strict=True)
    trained = [layer for level, layer in layers if layer is not None and level.form != "decoder"]
    remedy = f"; add --freeze {','.join(trained)} to need less" if trained else ""
    if needed > free:
        where = f"--cache-features in {cache.path.parent}"
        raise ConfigError(where, f"needs {_size(needed)}, but only {_size(free)} are free", f"free space{remedy}")
    size = f"{_size(needed)} for {missing} tiles with {cache.views} views of {_size(cache.view_bytes)}"
    logger.info("%s: needs %s; %s are free%s", cache.path, size, _size(free), remedy)


def _size(size_bytes: float) -> str:
    """Format a number of bytes with three digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def _duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
