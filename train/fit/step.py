"""One training step: forward, backward, clip, update. It may take several batches and processes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from schemas.errors import TrainingError
from train.config import FitConfig
from train.data.collate import Batch
from train.fit.forward import TrainingForward
from train.loss.batch_loss import batch_loss
from train.loss.mask_loss import LossTerms
from train.loss.pixel_terms import EAGER, compiled_kernels
from train.model.promptable import PromptableSam
from train.runtime.device import autocast
from train.runtime.distributed import World
from train.transforms.augment import AugmentConfig
from train.transforms.color import augment_color

TERMS = ("loss", "mask", "dice", "iou", "presence")
COUNTS = ("objects", "dropped", "skipped")


@dataclass(frozen=True)
class LaunchedStep:
    """A step that the device may still be computing.

    Attributes:
        batches: The batches of this process.
        numbers: float32 (6,), the loss, its terms and the norm of the gradient before clipping, of this process.
        counts: Numbers of objects, of dropped objects and of skipped maps, over all processes.
        by_class: Number of objects by class code, over all processes.
        world: Processes of the run.
    """

    batches: Sequence[Batch]
    numbers: Tensor
    counts: list[float]
    by_class: dict[int, int]
    world: World

    def read(self) -> tuple[dict[str, float], dict[str, int]]:
        """Wait for the step and return its numbers.

        Returns:
            Two dicts, both over all processes. The first has the loss, its terms and the norm of the gradient before
            clipping. The second has the numbers of objects, of objects that a transform dropped, and of skipped maps.

        Raises:
            TrainingError: The loss or the gradient is not finite.
        """
        # All numbers come in one transfer, because each `.item()` would wait for the device.
        numbers: list[float] = self.numbers.tolist()
        values: dict[str, float] = dict(zip(TERMS, self.world.sum(numbers[:-1]), strict=True))
        values["grad_norm"] = numbers[-1]
        if not np.isfinite(list(values.values())).all():
            tiles = [tile for batch in self.batches for tile in batch.tile_indices]
            raise TrainingError(
                f"tiles {tiles}", f"loss or gradient is not finite ({values})", "lower --lr, or inspect these tiles"
            )
        return values, {name: int(count) for name, count in zip(COUNTS, self.counts, strict=True)}


class TrainStep:
    """Makes training steps with a model and its optimizer.

    Args:
        model: The model that is trained, on its device.
        optimizer: Optimizer of the model's trainable parameters.
        config: Settings of the run.
        world: Processes of the run.
        device: Device of the model.
        codes: Codes of the classes whose objects are counted.
    """

    def __init__(
        self,
        model: PromptableSam,
        optimizer: torch.optim.Optimizer,
        config: FitConfig,
        world: World,
        device: torch.device,
        codes: Sequence[int] = (),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.world = world
        self.device = device
        self.codes = codes
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.forward = TrainingForward(model, config.corrections, config.mask_prompt_share)
        self.kernels = compiled_kernels() if config.compile else EAGER
        self.parallel = self._wrap() if world.size > 1 else None

    def _wrap(self) -> DistributedDataParallel:
        ids = [self.device.index] if self.device.type == "cuda" else None
        # The model's buffers are constants, so they need no sync. torch 2.14 renamed the flag that turns the sync off.
        is_new = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
        sync: dict[str, Any] = {"forward_sync_buffers" if is_new else "broadcast_buffers": False}
        return DistributedDataParallel(self.forward, device_ids=ids, **sync)

    def __call__(self, batches: Sequence[Batch]) -> tuple[dict[str, float], dict[str, int]]:
        """Make one step and wait for its numbers; see `launch` and `LaunchedStep.read`."""
        return self.launch(batches).read()

    def launch(self, batches: Sequence[Batch]) -> LaunchedStep:
        """Start one step. On a GPU this does not wait for the step, so the host can prepare the next one meanwhile.

        Args:
            batches: The batches of the step, whose gradients are summed as if they were one.

        Returns:
            The started step.
        """
        names = ("num_scored_objects", "num_objects", "dropped", "skipped")
        counted = [float(sum(getattr(batch, name) for batch in batches)) for name in names]
        counted += [float(sum(batch.objects_by_class.get(code, 0) for batch in batches)) for code in self.codes]
        objects, *counts = self.world.sum(counted)
        by_class = {code: int(count) for code, count in zip(self.codes, counts[len(COUNTS) :], strict=True) if count}
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(TERMS), device=self.device)
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                sums += self.accumulate(batch.to(self.device), max(objects, 1.0))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
        # The update comes before any number is read, so that the device does not stand idle. If a number is not finite,
        # `read` ends the run, and the spoiled weights are not saved.
        if objects:
            self.optimizer.step()
        numbers = torch.cat([sums, norm.detach().reshape(1).to(sums)])
        return LaunchedStep(batches, numbers, counts[: len(COUNTS)], by_class, self.world)

    def loss(self, batch: Batch, objects: float) -> LossTerms:
        """Return the loss and its terms for one batch, each divided by `objects`.

        Args:
            batch: The batch, on the device.
            objects: Number of scored objects in the whole step, over all processes.
        """
        # Augment in float32, because the digits of bfloat16 are too few for the 256 levels of an image.
        images = self.augmented_images(batch, self.config.augment)
        with autocast(self.device):
            predictions = (self.parallel or self.forward)(batch, images)
        return batch_loss(predictions, batch, self.config.loss, objects, self.kernels)

    def accumulate(self, batch: Batch, objects: float) -> Tensor:
        """Add the gradient of one batch; nothing here waits for the device.

        Args:
            batch: The batch, on the device.
            objects: Number of scored objects in the whole step, over all processes. Every term is divided by it.

        Returns:
            float32 (5,), the loss and its terms in the order of `TERMS`.
        """
        terms = self.loss(batch, objects)
        # DDP averages gradients over processes, but the loss is a sum, so it is multiplied by their number.
        loss = terms.total * self.world.size
        if not batch.num_objects or self.config.frames > 1:
            # A process without objects must still join the collectives of the backward pass, with zero gradients. In
            # windows, the prompts of a batch decide which parameters are used.
            loss = loss + sum((parameter * 0).sum() for parameter in self.parameters)
        loss.backward()
        return _detached(terms)

    def augmented_images(self, batch: Batch, augment: AugmentConfig) -> Tensor:
        """Return images (T B, 3, H, W) from 0 to 255, each with the color changes that were drawn for it."""
        images, draws = batch.images.flatten(0, 1), batch.color_draws.flatten(0, 1)
        return augment_color(images, draws, augment) if draws.shape[1] else images


def _detached(terms: LossTerms) -> Tensor:
    return torch.stack([terms.total, terms.mask, terms.dice, terms.iou, terms.presence]).detach()
