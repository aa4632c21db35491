"""Settings that publications used to fine-tune SAM, for `--recipe`. Every other setting keeps its default.

Sources:
* `sam2`: SAM 2's published configuration for fine-tuning on MOSE, `sam2.1_hiera_b+_MOSE_finetune.yaml` of
  github.com/facebookresearch/sam2. Its boxes and clicks are drawn from the mask, as `--prompt random` does.
* `medsam2`: the configurations of github.com/bowang-lab/MedSAM2 (Ma et al., 2025, arXiv 2504.03600). It is trained with
  SAM 2's code, which moves the sides of boxes by up to 10 %.
* `pathosam`: Griebel et al., Segment Anything for Histopathology, 2025 (arXiv 2502.00408), trained with micro-sam
  (Archit et al., Nature Methods 2025): eight passes, of which the first takes a box or a click; one rate for all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from train.choices import RecipeName

logger = logging.getLogger(__name__)

_MOSE_AUGMENT = {
    "augment.rotate_deg": 25.0,
    "augment.shear_deg": 20.0,
    "augment.brightness": 0.1,
    "augment.contrast": 0.03,
    "augment.saturation": 0.03,
    "augment.grey": 0.05,
}

_MOSE_OPTIMIZER = {
    "optimizer.final_lr_fraction": 0.1,
    "optimizer.layer_decay": 0.9,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip_norm": 0.1,
}

RECIPES: dict[RecipeName, dict[str, Any]] = {
    "sam2": {
        "image_size": 1024,
        "prompt": "random",
        "corrections": 7,
        "mask_prompt_share": 1.0,
        "max_objects": 3,
        "epochs": 40,
        "optimizer.lr": 5e-6,
        "optimizer.vision_lr": 3e-6,
        **_MOSE_OPTIMIZER,
        **_MOSE_AUGMENT,
    },
    "medsam2": {
        "image_size": 512,
        "prompt": "box",
        "corrections": 0,
        "box_jitter": 0.1,
        "max_objects": 5,
        "epochs": 75,
        "optimizer.lr": 5e-5,
        "optimizer.vision_lr": 3e-5,
        **_MOSE_OPTIMIZER,
        **_MOSE_AUGMENT,
    },
    "pathosam": {
        "image_size": 512,
        "prompt": "mixed",
        "corrections": 7,
        "mask_prompt_share": 0.5,
        "box_jitter": 0.025,
        "max_objects": 25,
        "optimizer.lr": 1e-5,
        "optimizer.vision_lr": 1e-5,
        "optimizer.layer_decay": 1.0,
    },
}
"""The settings of each recipe, by dotted key."""


def with_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings of the recipe that `values` names; settings that are given keep their values.

    Args:
        values: Settings of a run as `FitConfig` takes them; `recipe` may name a recipe.
    """
    filled = dict(values)
    for key, value in _settings_in_effect(values.get("recipe"), values).items():
        group, _, name = key.rpartition(".")
        if not group:
            filled.setdefault(name, value)
        elif isinstance(filled.setdefault(group, {}), Mapping):
            filled[group] = {name: value, **cast("Mapping[str, Any]", filled[group])}
    return filled


def warn_of_overridden(flags: Mapping[str, Any], values: Mapping[str, Any], path: Path | None) -> None:
    """Log which settings of the recipe of the command line the settings file overrides with another value.

    A run's `config.json` holds every setting, so with that file a recipe would do nothing, and nobody would know.

    Args:
        flags: Settings of the command line, by dotted key; None means that the flag was not given.
        values: Settings of the file.
        path: The file; None without one.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    recipe, other = given.get("recipe"), list[str]()
    # The recipe would set these if the file left them out, so the file's own prompt and corrections do not count.
    for key, value in _settings_in_effect(recipe, given).items():
        group, _, name = key.rpartition(".")
        place = values.get(group) if group else values
        in_file = cast("Mapping[str, Any]", place).get(name, value) if isinstance(place, Mapping) else value
        if in_file != value and key not in given:
            other.append(key)
    if other:
        remedy = "leave them out of the file to take the recipe's values"
        logger.warning("--recipe %s: %s overrides %s; %s", recipe, path, ", ".join(other), remedy)


def _settings_in_effect(recipe: object, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe, without those that a given prompt or number of corrections leaves useless."""
    settings = dict(next((settings for name, settings in RECIPES.items() if name == recipe), {}))
    if given.get("prompt", settings.get("prompt")) not in ("box", "mixed"):
        settings.pop("box_jitter", None)
    if given.get("corrections", settings.get("corrections")) == 0:
        settings.pop("mask_prompt_share", None)
    return settings
