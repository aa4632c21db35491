"""Color augmentation: neutral draws change nothing, and each part changes what it says."""

from dataclasses import replace

import pytest
import torch

from train.config import FitConfig
from train.data.collate import Batch
from train.fit.step import TrainStep
from train.model.promptable import PromptableSam
from train.runtime.distributed import World
from train.transforms.augment import AugmentConfig
from train.transforms.color import DRAWS, augment_color

EVERYTHING = AugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, grey=0.5, stain=0.5)


def _images(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _draws(images: torch.Tensor, **values: float) -> torch.Tensor:
    names = ("brightness", "contrast", "saturation", "hue", "grey", "hematoxylin", "eosin", "residue")
    draws = torch.full((len(images), DRAWS), 0.5)
    for name, value in values.items():
        draws[:, names.index(name)] = value
    return draws


def _luma(images: torch.Tensor) -> torch.Tensor:
    return torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), images.float())


def test_switched_off_it_hands_the_images_through() -> None:
    images = _images()
    assert augment_color(images, torch.rand(2, DRAWS), AugmentConfig()) is images


def test_neutral_draws_change_nothing() -> None:
    images = _images()
    torch.testing.assert_close(augment_color(images, _draws(images), EVERYTHING), images.float(), atol=0.02, rtol=0)


def test_any_draws_stay_in_range_and_an_image_has_its_own() -> None:
    images = _images()
    draws = torch.rand(2, DRAWS, generator=torch.Generator().manual_seed(1))
    found = augment_color(images, draws, EVERYTHING)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 255
    alone = augment_color(images[1:], draws[1:], EVERYTHING)
    torch.testing.assert_close(found[1:], alone)
    assert not torch.allclose(found[0], augment_color(images[:1], draws[1:], EVERYTHING)[0])


def test_brightness_scales_pixels() -> None:
    images = _images()
    found = augment_color(images, _draws(images, brightness=0.0), AugmentConfig(brightness=0.25))
    torch.testing.assert_close(found, images.float() * 0.75)


def test_contrast_keeps_the_mean_and_shrinks_the_spread() -> None:
    images = _images()
    found = augment_color(images, _draws(images, contrast=0.0), AugmentConfig(contrast=0.5))
    torch.testing.assert_close(_luma(found).mean((1, 2)), _luma(images).mean((1, 2)))
    torch.testing.assert_close(_luma(found).std((1, 2)), _luma(images).std((1, 2)) / 2)


@pytest.mark.parametrize(
    ("draw", "config"), [({"saturation": 0.0}, AugmentConfig(saturation=1.0)), ({"grey": 0.1}, AugmentConfig(grey=0.2))]
)
def test_without_saturation_only_light_is_left(draw: dict[str, float], config: AugmentConfig) -> None:
    images = _images()
    found = augment_color(images, _draws(images, **draw), config)
    torch.testing.assert_close(found, _luma(images)[:, None].expand(-1, 3, -1, -1))


def test_hue_turns_colors_and_leaves_light() -> None:
    # Pale colors, since strong ones leave the range of RGB when they are turned.
    images = (112 + _images() // 8).to(torch.uint8)
    found = augment_color(images, _draws(images, hue=1.0), AugmentConfig(hue=0.25))
    torch.testing.assert_close(_luma(found), _luma(images), atol=0.05, rtol=0)
    assert (found - images).abs().amax() > 5


def test_stain_jitter_scales_the_density_of_one_stain() -> None:
    hematoxylin = torch.nn.functional.normalize(torch.tensor([0.650, 0.704, 0.286]), dim=0)
    pure = (256 * torch.exp(-hematoxylin) - 1).round().to(torch.uint8)[None, :, None, None].expand(1, 3, 4, 4)
    found = augment_color(pure, _draws(pure, hematoxylin=1.0), AugmentConfig(stain=0.5))
    density = -torch.log((found + 1) / 256)
    torch.testing.assert_close(density[0, :, 0, 0], 1.5 * hematoxylin, atol=0.02, rtol=0)
    unmoved = augment_color(pure, _draws(pure, eosin=1.0), AugmentConfig(stain=0.5))
    torch.testing.assert_close(unmoved, pure.float(), atol=1.0, rtol=0)
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    torch.testing.assert_close(
        augment_color(white, torch.rand(1, DRAWS), AugmentConfig(stain=0.5)), white.float(), atol=1e-3, rtol=0
    )


def test_each_image_of_a_step_has_its_own_draws(nano: PromptableSam, mixed_batch: Batch) -> None:
    draws = torch.rand(1, 3, DRAWS, generator=torch.Generator().manual_seed(1))
    batch = replace(mixed_batch, color_draws=draws)
    optimizer = torch.optim.SGD(nano.parameters())
    step = TrainStep(nano, optimizer, FitConfig(image_size=128), World(), torch.device("cpu"))
    found = step.augmented_images(batch, EVERYTHING)
    for place in range(3):
        one = slice(place, place + 1)
        torch.testing.assert_close(found[one], augment_color(batch.images[0, one], draws[0, one], EVERYTHING))
