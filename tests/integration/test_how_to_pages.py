"""The how-to pages run as they stand; the other pages have a file of their own, so that both run side by side."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pages import PAGES, Prepared, prepare_folder, run_page


@pytest.fixture(scope="module")
def prepared(module_path: Path) -> Iterator[Prepared]:
    with prepare_folder(module_path) as prepared:
        yield prepared


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in PAGES if "how-to" in page])
def test_page_runs(page: str, prepared: Prepared, tmp_path: Path) -> None:
    run_page(page, prepared, tmp_path)
