import json
import time
from pathlib import Path

import numpy as np
import pytest

from prep.build import build_store
from prep.config import BuildConfig, parse_codes
from prep.source.class_map import read_class_map
from schemas.errors import ConfigError, SourceError
from schemas.store.store import open_store


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_data_sets_own_table_is_a_class_map(real_data: Path) -> None:
    entries = read_class_map(real_data / "meta" / "gtruth_codes.tsv")
    assert len(entries) == 22
    assert parse_codes("dcis,blood_vessel", entries) == (20, 18)


def test_map_that_only_merges_keeps_the_class_names(tmp_path: Path) -> None:
    entries = read_class_map(_write(tmp_path, "merges.json", '{"19": 1}'))
    assert parse_codes("tumor,stroma", entries) == (1, 2)
    named = read_class_map(_write(tmp_path, "own.json", '[{"code": 9, "name": "gland"}]'))
    with pytest.raises(ConfigError, match=r"class 'tumor'.* use one of gland"):
        parse_codes("tumor", named)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.tsv", "code\tname\tinto\tcolor\n19\tangioinvasion\t1\t#ff0000\n1\ttumor\t\t\n"),
        ("map.csv", "code,name,into,color\n19,angioinvasion,1,#ff0000\n1,tumor,,\n"),
        ("map.csv", "code;name;into;color\n19;angioinvasion;1;#ff0000\n1;tumor;;\n"),
        ("map.json", '[{"code": 19, "into": 1, "color": [255, 0, 0]}, {"code": 1, "name": "tumor"}]'),
    ],
)
def test_table_and_json_give_the_same_map(tmp_path: Path, name: str, text: str) -> None:
    merged, kept = read_class_map(_write(tmp_path, name, text))
    assert (merged.code, merged.into, merged.info().color) == (19, 1, (255, 0, 0))
    assert (kept.code, kept.into, kept.info().name) == (1, None, "tumor")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not a class map"),
        ("a.json", "3", "neither a list nor an object"),
        ("a.json", '{"labels": {"whole tumor": [1, 2]}}', "its label whole tumor is a region of several codes"),
        ("a.json", '{"labels": ["a"]}', "its labels are not an object"),
        ("a.json", '[{"code": 1, "nmae": "x"}]', "nmae"),
        ("a.json", '{"19": 1, "1": 2}', "merges 19 into 1, which is itself merged"),
        ("a.tsv", "name\tinto\nx\t1\n", "no column code"),
        ("a.tsv", "code\tname\n1\ta\n1\tb\n", "names code 1 twice"),
        ("a.tsv", "code\tname\n-1\ta\n", "greater than or equal to 0"),
    ],
)
def test_malformed_maps_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_class_map(_write(tmp_path, name, text))
    assert name in str(caught.value)


def test_merged_codes_make_one_object_and_labels_stay_untouched(write_roi, tmp_path: Path) -> None:
    labels = np.full((40, 40), 2, np.uint8)
    labels[:10], labels[10:20], labels[20:22] = 1, 19, 255
    source = write_roi("a", labels)
    entries = read_class_map(
        _write(tmp_path, "map.json", '[{"code":1,"name":"cancer"},{"code":19,"into":1},{"code":2}]')
    )
    config = BuildConfig(
        size_px=40, classes=parse_codes("cancer,2", entries), ignore=(255,), class_map=entries, objects="label"
    )
    build_store(source, tmp_path / "s.zarr", config)
    opened = open_store(tmp_path / "s.zarr")
    record = opened[0]
    np.testing.assert_array_equal(record.labels, labels)
    assert record.object_ids.tolist() == record.class_ids.tolist() == [1, 2]
    np.testing.assert_array_equal(record.segments[0], np.isin(labels, [1, 19]))
    np.testing.assert_array_equal(record.ignore, labels == 255)
    assert [info.name for info in opened.manifest.classes] == ["cancer", "stroma"]


def test_merged_codes_join_components(write_roi, tmp_path: Path) -> None:
    labels = np.full((40, 40), 2, np.uint8)
    labels[5:15, 5:15], labels[15:25, 5:15] = 1, 19
    source = write_roi("a", labels)
    entries = read_class_map(_write(tmp_path, "map.json", '{"19": 1}'))
    config = BuildConfig(size_px=40, classes=(1, 2), ignore=(), class_map=entries, objects="component")
    build_store(source, tmp_path / "s.zarr", config)
    assert open_store(tmp_path / "s.zarr").column("objects/area_px").tolist() == [200, 1400]


def test_map_that_names_classes_decides_which_codes_are_known(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.full((40, 40), 2, np.uint8))
    entries = read_class_map(_write(tmp_path, "map.json", '[{"code": 1, "name": "cat"}]'))
    with pytest.raises(SourceError, match="unknown class code 2"):
        build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=40, classes=(1,), ignore=(), class_map=entries))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"1":' * 100_000])
def test_deeply_nested_class_map_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(ConfigError, match="is not a class map"):
        read_class_map(tmp_path / "map.json")


def test_map_of_every_code_is_read_quickly(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps([{"code": code} for code in range(65536)]))
    begun = time.monotonic()
    assert len(read_class_map(tmp_path / "map.json")) == 65536
    assert time.monotonic() - begun < 20


def test_invalid_color_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps([{"code": 1, "color": [300, 0, 0]}]))
    with pytest.raises(ConfigError, match=r"color\.0: Input should be less than or equal to 255"):
        read_class_map(tmp_path / "map.json")


def test_two_codes_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives two codes the name tumor"):
        read_class_map(_write(tmp_path, "m.tsv", "code\tname\tinto\n1\ttumor\t\n2\ttumor\t\n"))
    merged = read_class_map(_write(tmp_path, "m.tsv", "code\tname\tinto\n1\ttumor\t\n2\ttumor\t1\n"))
    assert [entry.into for entry in merged] == [None, 1]


def test_key_that_stands_twice_in_json_is_an_error(tmp_path: Path) -> None:
    for text in ('{"19": 1, "20": 2, "19": 3}', '[{"code": 1, "name": "a", "code": 2}]'):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(ConfigError, match=r"m.json: is not a class map \(the key (19|code) occurs twice\)"):
            read_class_map(tmp_path / "m.json")


@pytest.mark.parametrize(
    "labels",
    [
        '{"background": 0, "tumor": 1, "stroma": 2, "ignore": 3}',
        '{"0": "background", "1": "tumor", "2": "stroma", "3": "ignore"}',
    ],
)
def test_labels_of_nnunet_name_the_classes_and_what_is_ignored(write_roi, tmp_path: Path, build, labels: str) -> None:
    mask = np.arange(4, dtype=np.uint8).repeat(16)[:, None].repeat(64, 1)
    source = write_roi("a", mask)
    path = _write(tmp_path, "dataset.json", f'{{"channel_names": {{"0": "R"}}, "labels": {labels}, "numTraining": 1}}')
    assert build(source, tmp_path / "s.zarr", "--class-map", str(path)) == 0
    store = open_store(tmp_path / "s.zarr")
    assert [info.name for info in store.manifest.classes] == ["tumor", "stroma"]
    np.testing.assert_array_equal(store[0].ignore, mask == 3)
    assert build(source, tmp_path / "n.zarr", "--class-map", str(path), "--ignore", "none") == 0
    assert [info.name for info in open_store(tmp_path / "n.zarr").manifest.classes] == ["tumor", "stroma", "ignore"]
