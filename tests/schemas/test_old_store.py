"""A store that an earlier version wrote is read as that version read it."""

import json
import sys
from pathlib import Path

import pytest

from prep.cli import main
from tests.tools.store_digests import digests_of

GOLDEN = Path(__file__).parents[1] / "golden"
STORE = GOLDEN / "store_3638d48.zarr"


def test_every_array_and_prompt_is_read_as_it_was() -> None:
    recorded = json.loads((GOLDEN / "store_3638d48.json").read_text())
    # Four arrays of pixels, 24 columns of objects, prompts, tiles and checksums, and three kinds of prompts twice.
    assert len(recorded) == 34
    assert digests_of(STORE) == recorded


def test_it_is_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "verify", str(STORE)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "intact; 12 tiles, 29 objects" in capsys.readouterr().out
