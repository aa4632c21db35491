"""The settings of a run: flags override a YAML file, and errors name the setting."""

import json
from pathlib import Path

import pytest
import torch

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.backbone.sam2 import SAM2
from train.config import FitConfig, read_config
from train.fit.finish import describe_run, write_json
from train.fit.state import RunIdentity, start_run


def _yaml(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    path = _yaml(tmp_path, "epochs: 7\nbatch_size: 2\noptimizer: {lr: 0.001, warmup_steps: 5}\naugment: {crop: 0.5}\n")
    config = read_config(path, {"batch_size": 3, "optimizer.lr": 0.01, "seed": None})
    assert (config.epochs, config.batch_size, config.seed) == (7, 3, 0)
    assert (config.optimizer.lr, config.optimizer.warmup_steps) == (0.01, 5)
    assert config.augment.crop == 0.5
    assert read_config(None, {}) == FitConfig()


def test_dumped_configuration_can_be_read_again(tmp_path: Path) -> None:
    config = read_config(None, {"freeze": "decoder_only", "lora.rank": 4, "loss.class_weights": {1: 2.0}})
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    assert read_config(path, {}) == config


def test_config_json_of_a_run_can_be_read_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = FitConfig(epochs=3, image_size=128)
    write_json(path, describe_run(store, start_run(config, RunIdentity("", 1, 1), torch.device("cpu"))))
    assert {"init_sha256", "store", "versions"} <= json.loads(path.read_text()).keys()
    assert read_config(path, {}) == config


def test_init_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config(None, {"init": Path("a.pt")}).init == tmp_path / "a.pt"
    assert read_config(_yaml(tmp_path, "init: weights/a.pt"), {}).init == tmp_path / "weights" / "a.pt"


def test_error_names_a_bad_flag_with_its_dashes(tmp_path: Path) -> None:
    for path in (None, _yaml(tmp_path, "epochs: 2")):
        with pytest.raises(ConfigError, match="--lr: Input should be greater than 0"):
            read_config(path, {"optimizer.lr": -1.0})
    with pytest.raises(ConfigError, match="--negatives: cannot be used with --prompt random"):
        read_config(None, {"prompt": "random", "negatives": True})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key epoch; did you mean epochs?"),
        ("optimizer: {learning_rate: 1}", "unknown key optimizer.learning_rate; did you mean optimizer."),
        ("augment: {rotate: 3}", "unknown key augment.rotate; did you mean augment.rotate_deg?"),
        ("epochs: many", "epochs: Input should be a valid integer"),
        ("image_size: 1000", "image_size: Input should be a multiple of 32"),
        ("augment: {crop: 0}", "augment.crop: Input should be greater than 0"),
        ("optimizer: 3", "sets optimizer to 3; optimizer is a group of settings"),
        ("freeze: 5", "freeze: Value error, must be names of modules or presets"),
        ("freeze: [1]", "freeze: Value error, must be names of modules or presets"),
        ("- a\n- b", "is not a mapping"),
        ("a: [", "is not a YAML file"),
        ("epochs: 2001-13-45", "is not a YAML file (month must be"),
        ("epochs: !!int x", "is not a YAML file"),
        ("compile: !!bool x", "is not a YAML file"),
        ("epochs: !!timestamp x", "is not a YAML file"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "is not a YAML file (it has an alias"),
        ("optimizer: {a.b: 1}", "unknown key optimizer.a.b; did you mean"),
        ("loss: {class_weights: {1: {a: 1}}}", "loss.class_weights.1: "),
        ("seed: 100000000000000000000", "seed: Input should be less than or equal to"),
        ("image_size: 2147483648", "image_size: Input should be less than or equal to"),
        ("optimizer: {weight_decay: .inf}", "optimizer.weight_decay: Input should be a finite number"),
        ("a: !!python/object/apply:os.system ['touch /tmp/executed']", "is not a YAML file"),
        ("init: !!python/name:os.system", "is not a YAML file"),
    ],
)
def test_error_names_the_bad_setting(tmp_path: Path, text: str, message: str) -> None:
    path = _yaml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path, {"optimizer.lr": 1e-4})
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert not Path("/tmp/executed").exists()


def test_missing_file_and_file_that_is_not_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_config(tmp_path / "none.yaml", {})
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_config(path, {})


def test_freeze_takes_presets_and_modules() -> None:
    preset = SAM2.freeze_presets["decoder_only"]
    assert read_config(None, {"freeze": "decoder_only"}).freeze == preset
    assert read_config(None, {"freeze": "image_encoder.trunk, sam_mask_decoder"}).freeze == (
        "image_encoder.trunk",
        "sam_mask_decoder",
    )


def test_endless_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: is longer than 262144 bytes"):
        read_config(Path("/dev/zero"), {})


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("epochs: 3\nseed: 1\nepochs: 4\n", "epochs", 3),
        ("optimizer:\n  lr: 1e-4\nloss:\n  dice: 2\noptimizer:\n  vision_lr: 1e-5\n", "optimizer", 5),
        ("loss:\n  dice: 2\n  mask: 3\n  dice: 1\n", "dice", 4),
        ("{epochs: 3, epochs: 4}", "epochs", 1),
    ],
)
def test_key_that_stands_twice_is_an_error(tmp_path: Path, text: str, key: str, line: int) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=rf"c.yaml: is not a YAML file \(the key {key} occurs twice, again in line {line}\)"
    ):
        read_config(tmp_path / "c.yaml", {})


def test_flags_and_file_go_on_top_of_a_recipe(tmp_path: Path) -> None:
    path = _yaml(tmp_path, "recipe: pathosam\nmax_objects: 9\noptimizer: {lr: 0.001, warmup_steps: 5}\n")
    config = read_config(path, {"corrections": 2, "optimizer.vision_lr": 1e-4})
    assert (config.recipe, config.image_size, config.box_jitter, config.mask_prompt_share) == (
        "pathosam",
        512,
        0.025,
        0.5,
    )
    assert (config.max_objects, config.corrections) == (9, 2)
    rates = config.optimizer
    assert (rates.lr, rates.vision_lr, rates.layer_decay, rates.warmup_steps) == (0.001, 1e-4, 1.0, 5)
    assert FitConfig.model_validate(config.model_dump(mode="json")) == config
    plain = read_config(None, {"recipe": "sam2", "image_size": 256})
    assert (plain.image_size, plain.corrections, plain.prompt, plain.augment.rotate_deg) == (256, 7, "random", 25)


def test_settings_of_a_recipe_that_the_file_overrides_are_told(tmp_path: Path, caplog) -> None:
    """The settings of a run hold every key, so the recipe changes nothing with them."""
    path = tmp_path / "config.json"
    path.write_text(read_config(None, {"image_size": 512, "optimizer.lr": 1e-5}).model_dump_json())
    config = read_config(path, {"recipe": "pathosam", "max_objects": 7})
    assert (config.recipe, config.corrections, config.max_objects) == ("pathosam", 0, 7)
    (said,) = [record.getMessage() for record in caplog.records]
    # A value that is that of the recipe, and one that a flag gives, are no news.
    keys = "corrections, mask_prompt_share, box_jitter, optimizer.vision_lr, optimizer.layer_decay"
    assert said.startswith(f"--recipe pathosam: {path} overrides {keys}; leave them out of the file")
    caplog.clear()
    # A recipe in the file itself has its settings overridden on purpose.
    read_config(_yaml(tmp_path, "recipe: pathosam\nmax_objects: 9\n"), {})
    read_config(None, {"recipe": "pathosam", "max_objects": 9})
    read_config(_yaml(tmp_path, "epochs: 3\n"), {"recipe": "pathosam"})
    assert caplog.records == []


@pytest.mark.parametrize(
    ("flags", "left_out", "told"),
    [
        ({"recipe": "medsam2", "prompt": "centroid", "frames": None}, "box_jitter", "image_size"),
        ({"recipe": "pathosam", "corrections": 0}, "mask_prompt_share", "box_jitter"),
    ],
)
def test_settings_that_a_flag_leaves_without_effect_are_not_told(
    tmp_path: Path, caplog, flags: dict[str, object], left_out: str, told: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(FitConfig().model_dump_json())
    read_config(path, flags)
    (said,) = [record.getMessage() for record in caplog.records]
    keys = said.partition(" overrides ")[2].partition(";")[0].split(", ")
    assert told in keys
    assert left_out not in keys


def test_unknown_recipe_is_an_error_and_none_changes_nothing() -> None:
    with pytest.raises(ConfigError, match="--recipe: Input should be 'sam2', 'medsam2' or 'pathosam'"):
        read_config(None, {"recipe": "sam3"})
    assert read_config(None, {"recipe": None}) == FitConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "centroid", "box_jitter": 0.1}, "--box-jitter: cannot be used with --prompt centroid"),
        ({"prompt": "multi_point", "box_jitter": 0.1}, "--box-jitter: cannot be used with --prompt multi_point"),
        ({"prompt": "random", "box_jitter": 0.1}, "--box-jitter: cannot be used with --prompt random"),
        ({"mask_prompt_share": 0.5}, "--mask-prompt-share: is a share of the corrections, and there are none"),
        (
            {"recipe": "pathosam", "prompt": "centroid", "box_jitter": 0.1},
            "--box-jitter: cannot be used with --prompt centroid",
        ),
    ],
)
def test_setting_that_would_do_nothing_is_an_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(None, settings)


def test_settings_of_a_recipe_that_would_do_nothing_are_left_out() -> None:
    config = read_config(None, {"recipe": "pathosam", "prompt": "centroid", "corrections": 0})
    assert (config.box_jitter, config.mask_prompt_share, config.max_objects) == (0.0, 1.0, 25)
