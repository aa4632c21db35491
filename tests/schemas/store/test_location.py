"""Locations of stores: folders and URLs."""

import pytest

from schemas.errors import ConfigError
from schemas.store.location import is_remote, normal_location, object_store


def test_a_location_is_a_path_or_a_url() -> None:
    assert normal_location("s3://bucket/a.zarr//") == "s3://bucket/a.zarr"
    assert normal_location("file:///data/my%20store.zarr/") == "/data/my store.zarr"
    assert (is_remote("s3://bucket/a.zarr"), is_remote("a#1?.zarr"), is_remote("s3:/a")) == (True, False, False)


@pytest.mark.parametrize("name", ["run#1.zarr", "run?1.zarr"])
def test_a_name_that_a_url_would_cut_off_is_refused(name: str) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    with pytest.raises(ConfigError, match=r"has a \? or #, which"):
        object_store(f"s3://bucket/{name}")
