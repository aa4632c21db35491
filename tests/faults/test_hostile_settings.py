"""Test settings, class maps and split files that are made to break the code that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from prep.source.class_map import read_class_map
from prep.source.discover import RoiSource
from prep.source.split import file_split
from tests.faults.forms import forms
from tests.faults.fuzz_file import fuzz_file
from tests.faults.mutations import documents
from train.config import read_config

RUN: dict[str, Any] = {
    "model": "tiny",
    "image_size": 256,
    "prompt": "mixed",
    "freeze": ["image_encoder"],
    "epochs": 3,
    "optimizer": {"lr": 1e-4, "accumulate": 2},
    "lora": {"rank": 0, "modules": ["attn.qkv"]},
    "augment": {"orientation": True, "crop": 0.5},
    "loss": {"class_weights": {"1": 2.0}},
}
CLASSES = {"classes": [{"code": 1, "name": "a", "into": None, "color": "#ffffff"}, {"code": 19, "into": 1}]}
TSV = b"GT_code\tlabel\tinto\tcolor\n1\ttumor\t\t#ff0000\n19\tangio\t1\t\n"
CSV = b"patient,split\nTCGA-A1-0000,train\nTCGA-A2-0000,test\n"
ROIS = [RoiSource(name, Path("i.png"), Path("m.png"), name, "A1") for name in ("TCGA-A1-0000", "TCGA-A2-0000")]

# Tags, dates, numbers and aliases to which YAML gives a special meaning.
_yaml_words = (
    st.sampled_from(
        ["!!int x", "!!bool x", "!!timestamp x", "!!float q", "!!set {a}", "!!binary é", "!!omap x", "!tag x"]
    )
    | st.sampled_from(["!!python/object/apply:os.system ['touch evil']", "!!python/name:os.system", "!!pairs [a]"])
    | st.sampled_from(["2001-13-45", "0b_", "1:99:99", ".inf", ".nan", "9" * 5000, '"\\ud800"', "!!null q", "="])
    | st.sampled_from(["&a [*a]", "&a {x: 1}", "*b", "<<: 3", "<<: *a", "{[1]: 2}", "? {a: b}", "- a: b", "%YAML 3"])
    | st.sampled_from(["[[[[[[", "|\n  x", "-", "{", "'", "\t"])
    | st.text(max_size=6)
)
_yaml_keys = st.sampled_from([*RUN, "workers", "seed", "a.b", "optimizer.a.b", "lora.rank", "1", "[1]", "null", "init"])
yaml_texts = st.lists(st.builds("{}: {}".format, _yaml_keys | _yaml_words, _yaml_words), max_size=4).map("\n".join)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_run_settings_are_read_or_refused(tmp_path: Path, inputs: int, tally) -> None:
    texts = yaml_texts.map(_encoded) | documents(RUN).map(lambda document: json.dumps(document).encode())

    def read(path: Path) -> None:
        read_config(path, {"optimizer.lr": 1e-3, "augment.orientation": True})

    tally(
        "hostile run settings (YAML)", fuzz_file(inputs, tmp_path / "run.yaml", read, json.dumps(RUN).encode(), texts)
    )


@pytest.mark.parametrize("inputs", forms(100, 10_000))
@pytest.mark.parametrize("suffix", [".json", ".tsv"])
def test_class_maps_are_read_or_refused(tmp_path: Path, inputs: int, suffix: str, tally) -> None:
    if suffix == ".json":
        valid = json.dumps(CLASSES["classes"]).encode()
        texts = documents(CLASSES).map(lambda document: json.dumps(document.get("classes")).encode())
    else:
        cells = st.sampled_from(["code", "name", "into", "color", "1", "19", "-1", "9" * 5000, "#zz", "", '"', "\0"])
        rows = st.lists(cells | st.text(max_size=5), max_size=5).map("\t".join)
        valid, texts = TSV, st.lists(rows, max_size=5).map("\n".join).map(_encoded)
    tally(f"hostile class maps ({suffix})", fuzz_file(inputs, tmp_path / f"map{suffix}", read_class_map, valid, texts))


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_split_files_are_read_or_refused(tmp_path: Path, inputs: int, tally) -> None:
    cells = st.sampled_from(["patient", "split", "frame_id", "train", "test", "TCGA-A1-0000", "../x", "", '"', "\0"])
    rows = st.lists(cells | st.text(max_size=5), max_size=4).map(",".join)
    texts = st.lists(rows, max_size=5).map("\n".join).map(_encoded)

    def read(path: Path) -> None:
        file_split(ROIS, path)

    tally("hostile split files (CSV)", fuzz_file(inputs, tmp_path / "split.csv", read, CSV, texts))
