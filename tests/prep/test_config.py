import pytest

from prep.config import BuildConfig, parse_codes
from schemas.errors import ConfigError


def test_codes_by_number_and_name() -> None:
    assert parse_codes("1, tumor,DCIS,blood_vessel,2") == (1, 20, 18, 2)
    assert parse_codes("") == ()


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="class 'tumour': is no code"):
        parse_codes("tumour")


def test_defaults_that_depend_on_others() -> None:
    assert BuildConfig().stride_px == 1024
    assert BuildConfig(size_px=64).stride_px == 64
    assert BuildConfig().min_area_px == 1
    assert BuildConfig(objects="component").min_area_px == 64
