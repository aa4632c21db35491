"""Configuration of a training run: one pydantic model per component. `config.json` and each checkpoint repeat it."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from train.backbone.catalog import ModelSize, backbone_of
from train.backbone.nano_start import NANO, NANO_IMAGE_SIZE
from train.choices import MAX_IMAGE_SIZE, MAX_SEED, BalanceChoice, DeviceChoice, PromptChoice, RecipeName, prompt_kinds
from train.recipes import warn_of_overridden, with_recipe
from train.settings import LoraConfig, LossConfig, OptimizerConfig, Settings
from train.settings_yaml import read_yaml
from train.transforms.augment import AugmentConfig

ECHO_KEYS = ("init_sha256", "store", "store_fingerprint", "versions")
"""Keys of `config.json` that are not settings. They are ignored when that file is given as `--config`."""


class FitConfig(Settings):
    """The settings of one training run.

    Attributes:
        model: The network: `nano` is a miniature, the others are Meta's four SAM 2.1 models.
        init: Checkpoint to start from; without it, weights are random. `nano` is the start that comes with this
            project, which was trained on synthetic tissue, and implies `model: nano` and `image_size: 128`.
        recipe: Publication whose settings replace the defaults; settings that are given override them.
        image_size: Side of the network's input in pixels, a multiple of 32.
        prompt: The prompt of each object. `mixed` is a box or a click from the store, drawn for each image; `random` is
            a box or a click drawn from the mask, as in SAM 2's own training. With frames, the first frame has the
            prompt; `mask` gives the object's mask there, and `random` does so for half of the windows.
        frames: Frames in a window of a sequence; 1 trains on single images.
        frame_stride: Step in the sequence from one frame of a window to the next.
        reverse: Share of the windows that are read backwards.
        corrected_frames: Frames of a window that get the clicks of `corrections`: the first, and later ones that are
            drawn.
        negatives: Whether the store's negative points are appended to each prompt.
        corrections: Number of simulated clicks on the error after the first prompt.
        mask_prompt_share: Share of the correction clicks that come with the previous pass's mask logits as a prompt,
            drawn for each object and click.
        box_jitter: Largest random move of each side of a stored box, as a share of the box's length along that axis;
            0 leaves boxes as they are.
        epochs: Passes over the training tiles.
        max_steps: Stop after this many steps, even if `epochs` are not complete; None sets no limit.
        batch_size: Images per batch and process.
        max_objects: Maximum objects per image in one step.
        patients: Number of training patients, drawn with `seed`; None trains on all. An epoch has as many images as
            with all patients, so tiles come several times.
        balance: `classes` draws objects so that all classes come equally often, however few tiles a class is on; `none`
            draws all objects alike.
        workers: Data-loading processes; 0 loads in the training process.
        freeze: Names of SAM 2's modules that are not trained, or of presets.
        save_every_steps: Steps between saves within an epoch; 0 saves only at the end of each epoch.
        keep_previous: Whether the save before the last one is kept, in case the last one is damaged.
        patience: Stop after this many epochs without a better score; 0 never stops.
        best_by: The score that chooses best.pt: `dice` or `iou`.
        seed: Seed of initial weights, order, prompts and augmentation.
        device: `auto` uses CUDA if it is available.
        compile: Whether torch compiles image encoder, mask decoder and loss.
        checkpoint_activations: Whether a trained encoder recomputes its activations to save memory.
        cache_features: Whether a frozen image encoder's features are kept beside the store and read instead of images.
        report: Whether report.html is written at the end. It takes one more validation, with the start and the
            baselines.
        augment: Settings of the augmentation of tiles.
        optimizer: Settings of AdamW and of its learning rates.
        lora: Settings of low-rank adapters.
        loss: Weights and choices of the loss.
    """

    model: ModelSize = "tiny"
    init: Path | None = None
    recipe: RecipeName | None = None
    image_size: int = Field(default=1024, ge=128, le=MAX_IMAGE_SIZE, multiple_of=32)
    prompt: PromptChoice = "mixed"
    frames: int = Field(default=1, ge=1, le=64)
    frame_stride: int = Field(default=1, ge=1, le=1024)
    reverse: float = Field(default=0.0, ge=0, le=1)
    corrected_frames: int = Field(default=1, ge=1)
    negatives: bool = False
    corrections: int = Field(default=0, ge=0, le=16)
    mask_prompt_share: float = Field(default=1.0, ge=0, le=1)
    box_jitter: float = Field(default=0.0, ge=0, le=0.5)
    epochs: int = Field(default=20, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=4, ge=1)
    max_objects: int = Field(default=3, ge=1)
    patients: int | None = Field(default=None, ge=1)
    balance: BalanceChoice = "none"
    workers: int = Field(default=2, ge=0, le=1024)
    freeze: tuple[str, ...] = ()
    save_every_steps: int = Field(default=0, ge=0)
    keep_previous: bool = True
    patience: int = Field(default=0, ge=0)
    best_by: str = Field(default="dice", pattern="^(dice|iou)$")
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    device: DeviceChoice = "auto"
    compile: bool = False
    checkpoint_activations: bool = False
    cache_features: bool = False
    report: bool = True
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig = LoraConfig()
    loss: LossConfig = LossConfig()

    @field_validator("freeze", mode="before")
    @classmethod
    def _expand_presets(cls, value: object, info: ValidationInfo) -> object:
        names = [value] if isinstance(value, str) else value or ()
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("must be names of modules or presets")
        parts = [part.strip() for name in cast("list[str]", names) for part in name.split(",") if part.strip()]
        return backbone_of(info.data.get("model", "tiny")).expand_presets(parts)

    @field_validator("init", mode="before")
    @classmethod
    def _from_any_folder(cls, value: object) -> object:
        # `evaluate` looks for this file again, perhaps from another working folder. Only the bare word is the start of
        # this project: as a path, `./nano` would lose its dot, so it is made absolute while it is text.
        return Path(value).absolute() if isinstance(value, str | Path) and str(value) != NANO else value

    @model_validator(mode="before")
    @classmethod
    def _nano_start_is_of_nano(cls, values: Any) -> Any:
        if isinstance(values, dict) and str(values.get("init")) == NANO:
            return {"model": NANO, "image_size": NANO_IMAGE_SIZE, **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _recipe_replaces_defaults(cls, values: Any) -> Any:
        return with_recipe(cast("dict[str, Any]", values)) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_together(self) -> FitConfig:
        if self.prompt == "random" and self.negatives:
            raise ConfigError("--negatives", "cannot be used with --prompt random", "use --corrections")
        if self.box_jitter and self.prompt not in ("box", "mixed"):
            remedy = "use --box-jitter 0, or --prompt box"
            raise ConfigError("--box-jitter", f"cannot be used with --prompt {self.prompt}", remedy)
        if self.mask_prompt_share < 1 and not self.corrections:
            remedy = "use --mask-prompt-share 1, or --corrections 7"
            raise ConfigError("--mask-prompt-share", "is a share of the corrections, and there are none", remedy)
        if self.frames == 1:
            self._check_single_images()
        else:
            self._check_frames()
        return self

    def _check_single_images(self) -> None:
        if self.prompt == "mask":
            raise ConfigError(
                "--prompt mask",
                "would give the model the mask that it should predict",
                "give --frames, for example --frames 4",
            )
        for name, is_set in (
            ("--frame-stride", self.frame_stride > 1),
            ("--reverse", self.reverse > 0),
            ("--corrected-frames", self.corrected_frames > 1),
        ):
            if is_set:
                raise ConfigError(name, "needs windows of several frames", "give --frames, for example --frames 4")

    def _check_frames(self) -> None:
        for name, is_set in (
            ("--compile", self.compile),
            ("--cache-features", self.cache_features),
            ("--mask-prompt-share", self.mask_prompt_share < 1),
            ("--balance classes", self.balance == "classes"),
        ):
            if is_set:
                # A recipe may have set the share.
                remedy = f"use {name} 1" if name == "--mask-prompt-share" else f"leave {name} out"
                raise ConfigError(name, "cannot be used with --frames", remedy)
        if self.prompt == "mask" and self.negatives:
            raise ConfigError("--negatives", "cannot be used with --prompt mask", "leave --negatives out")
        if self.prompt == "mask" and self.corrections:
            raise ConfigError("--corrections", "cannot correct the masks of --prompt mask", "use --prompt random")
        if self.corrected_frames > 1 and not self.corrections:
            raise ConfigError("--corrected-frames", "needs clicks that correct", "give --corrections, for example 7")
        if self.corrected_frames > self.frames:
            what = f"is more than the {self.frames} frames of a window"
            raise ConfigError(f"--corrected-frames {self.corrected_frames}", what, "lower it, or raise --frames")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole run."""
        steps = self.epochs * steps_per_epoch
        return min(steps, self.max_steps or steps)

    @property
    def gives_masks(self) -> bool:
        """Whether the prompt of some objects is their mask in the first frame."""
        return self.frames > 1 and self.prompt in ("mask", "random")

    @property
    def prompt_kinds(self) -> tuple[PromptKind, ...]:
        """Prompt kinds that validation scores."""
        return prompt_kinds(self.prompt)


def read_config(path: Path | None, overrides: dict[str, Any]) -> FitConfig:
    """Read a run's configuration from a YAML file, and let flags override it.

    Args:
        path: The file, or None for the defaults.
        overrides: Values by dotted key, as in `{"optimizer.lr": 1e-4}`. None means that the flag was not given.

    Raises:
        ConfigError: The file cannot be read, or a key or value is not allowed.
    """
    values = read_yaml(path) if path else {}
    for key in ECHO_KEYS:
        values.pop(key, None)
    warn_of_overridden(overrides, values, path)
    for key, value in overrides.items():
        if value is not None:
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise ConfigError(
                        f"{path}", f"sets {parent} to {reprlib.repr(place)}", f"{parent} is a group of settings"
                    )
            place[last] = value
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            remedy = _nearest(first["loc"])
            raise ConfigError(path or "the configuration", f"has an unknown key {key}", remedy) from error
        if overrides.get(key) is not None or path is None:
            raise ConfigError(f"--{flag_of(key)}", first["msg"], "see `bcss-train fit --help`") from error
        raise ConfigError(path, f"{key}: {first['msg']}", "see docs/reference/settings.md") from error


def flag_of(key: str) -> str:
    """Return the flag of `bcss-train fit` for a setting, given by its dotted key, without the dashes."""
    return _FLAGS.get(key, key.rpartition(".")[2]).replace("_", "-")


def flags_as_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the command line's parameters stand for, by dotted key; leave out other parameters.

    Args:
        parameters: Values by parameter name; None means that the flag was not given.
    """
    keys = {flag_of(key).replace("-", "_"): key for key in setting_keys()}
    return {keys[name]: value for name, value in parameters.items() if name in keys}


def setting_keys() -> list[str]:
    """List the dotted keys of all settings of a run: first those within groups, then those at the top."""
    groups = {name: field.annotation for name, field in FitConfig.model_fields.items() if _is_group(field.annotation)}
    nested = [f"{name}.{key}" for name, group in groups.items() for key in cast("type[BaseModel]", group).model_fields]
    return nested + [name for name in FitConfig.model_fields if name not in groups]


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


_FLAGS = {"optimizer.ema_decay": "ema", "augment.orientation": "augment", "lora.rank": "lora"}
"""Flags whose name differs from the last part of the setting's key."""


def _nearest(place: tuple[int | str, ...]) -> str:
    *parents, last = (str(part) for part in place)
    model: type[BaseModel] = FitConfig
    for parent in parents:
        field = model.model_fields.get(parent)
        if field is None or not _is_group(field.annotation):
            return "see docs/reference/settings.md"
        model = cast("type[BaseModel]", field.annotation)
    close = difflib.get_close_matches(last, list(model.model_fields), n=1, cutoff=0.0)
    return f"did you mean {'.'.join([*parents, close[0]])}?"
