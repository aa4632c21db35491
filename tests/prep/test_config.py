import numpy as np
import pytest

from prep.config import BuildConfig, code_of_class, parse_codes
from prep.plan import plan_build
from prep.source.class_map import ClassEntry
from schemas.errors import ConfigError


def test_codes_by_number_and_name() -> None:
    assert parse_codes("1, tumor,DCIS,blood_vessel,2") == (1, 20, 18, 2)
    assert parse_codes("") == ()


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="class 'tumour': is neither a code"):
        parse_codes("tumour")


def test_defaults_that_depend_on_others() -> None:
    assert BuildConfig().stride_px == 1024
    assert BuildConfig(size_px=64).stride_px == 64
    assert BuildConfig().min_area_px == 1
    assert BuildConfig(objects="component").min_area_px == 64


def test_code_beyond_sixteen_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="class '70000': is neither a code"):
        parse_codes("1,70000")


@pytest.mark.parametrize("settings", [{"stride_px": 32}, {"edge": "pad"}])
def test_stride_and_edge_are_refused_with_resize(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="makes one tile of a ROI; leave out --stride and --edge"):
        BuildConfig.model_validate({"size_px": 64, "layout": "resize", **settings})


def test_class_that_is_merged_away_is_refused() -> None:
    entries = (ClassEntry(code=5, into=1),)
    with pytest.raises(ConfigError, match="names 5, which the class map merges into 1"):
        BuildConfig(classes=(1, 5), class_map=entries)


def test_class_map_with_names_replaces_the_names_of_bcss() -> None:
    config = BuildConfig(classes="all", class_map=(ClassEntry(code=1, name="cat"), ClassEntry(code=2, name="dog")))
    assert [config.describe(code).name for code in (1, 2, 5)] == ["cat", "dog", "class_5"]


def test_ranges_of_codes() -> None:
    assert parse_codes("1-3,10,tumor") == (1, 2, 3, 10)
    for text in ("3-1", "1-70000", "1-", "-1", "1-2-3"):
        with pytest.raises(ConfigError, match="is neither a code"):
            parse_codes(text)


def test_class_of_a_table_is_one_name_or_one_code() -> None:
    names = ("Tumor", "tumor", "Tumor, necrotic", "3", "stroma")
    entries = tuple(ClassEntry(code=code, name=name) for code, name in enumerate(names, start=1))
    assert [code_of_class(name, entries) for name in (*names, "STROMA", "9")] == [1, 2, 3, 4, 5, 5, 9]
    for text in ("TUMOR", ",", "", "1-2", "70000"):
        with pytest.raises(ConfigError, match="is neither a code nor a class name"):
            code_of_class(text, entries)
    assert parse_codes("Tumor,3,Stroma", entries) == (1, 3, 5)
    with pytest.raises(ConfigError, match=r"did you mean Tumor or tumor\?"):
        parse_codes("TUMOR", entries)


def test_tile_that_covers_more_than_a_roi_may_have_is_refused(write_roi) -> None:
    source = write_roi("a", np.ones((64, 64), np.uint8))
    settings = BuildConfig(size_px=1024, mpp_um=8, source_mpp_um=0.25)
    with pytest.raises(ConfigError, match=r"--size 1024 with --mpp 8: makes a tile cover 32768 x 32768 px of .*a\."):
        plan_build(source, settings)
    plan_build(source, BuildConfig(size_px=256, mpp_um=8, source_mpp_um=0.25))
