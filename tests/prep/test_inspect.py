import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prep.build import build_store
from prep.config import BuildConfig
from prep.inspect import class_counts, has_padding, ignored_share, summarize_store
from prep.source.class_map import ClassEntry
from prep.summary_tables import print_classes
from schemas.errors import StoreError
from schemas.manifest import SourceRecord
from schemas.picture.decode import read_mask
from schemas.store.store import Store, open_store
from tests.conftest import WriteRoi


def test_counts_add_up(store: Store) -> None:
    summary = summarize_store(store)
    assert summary.tiles == len(store) == sum(split.tiles for split in summary.splits)
    assert summary.objects == sum(count.objects for count in summary.classes)
    assert sum(split.patients for split in summary.splits) == 6
    areas = dict.fromkeys(("tumor", "stroma"), 0)
    for record in store:
        for class_id, segment in zip(record.class_ids, record.segments, strict=True):
            if class_id in (1, 2):
                areas[("tumor", "stroma")[class_id - 1]] += int(segment.sum())
    for name, area in areas.items():
        assert sum(count.pixels for count in summary.classes if count.class_name == name) == area


def test_pixels_of_a_roi_count_once_where_tiles_overlap(sample_source: Path, tmp_path: Path) -> None:
    config = BuildConfig(size_px=128, stride_px=64, class_map=(ClassEntry(code=3, into=2),), classes=(1, 2))
    build_store(sample_source, tmp_path / "s.zarr", config)
    store = open_store(tmp_path / "s.zarr")
    masks = {source.frame_id: read_mask(sample_source / str(source.mask)) for source in store.manifest.sources}
    split_of = dict(zip(store.column("tiles/frame_id"), store.column("tiles/split"), strict=True))
    for count in class_counts(store):
        codes = (1,) if count.class_id == 1 else (2, 3)
        truth = sum(np.isin(m, codes).sum() for frame, m in masks.items() if split_of[frame] == count.split)
        assert count.roi_pixels == truth < count.pixels


def test_sizes_are_those_on_disk(store: Store) -> None:
    summary = summarize_store(store)
    for array in summary.arrays:
        files = [path for path in (Path(store.path) / array.name).rglob("*") if path.is_file()]
        assert array.stored_bytes == sum(path.stat().st_size for path in files)
    assert {array.name: array.raw_bytes for array in summary.arrays}["images"] == len(store) * 128 * 128 * 3


def test_checksums_of_other_files_are_refused(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    metadata = tmp_path / "copy.zarr" / "checksums" / "key" / "zarr.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"shape": [0]}))
    with pytest.raises(StoreError, match="checksums: has columns of different lengths"):
        summarize_store(open_store(tmp_path / "copy.zarr"))


def test_share_of_ignored_pixels_is_that_of_the_tiles(store: Store) -> None:
    expected = np.mean([record.ignore.mean() for record in store])
    assert summarize_store(store).ignored_share == pytest.approx(expected)
    assert expected > 0


def test_manifest_without_sources_is_summarized(store: Store) -> None:
    assert ignored_share(store.manifest.model_copy(update={"sources": ()})) == 0
    source = store.manifest.sources[0].model_dump()
    with pytest.raises(ValueError, match="ignored_px"):
        SourceRecord.model_validate({**source, "ignored_px": 10**400})


@pytest.mark.parametrize(
    ("changes", "is_padded"),
    [
        ({"size_px": 32}, False),
        ({"size_px": 48}, True),
        ({"size_px": 24, "edge": "pad"}, True),
        ({"size_px": 16, "mpp_um": 0.5, "source_mpp_um": 0.25}, False),
        ({"size_px": 24, "mpp_um": 0.5, "source_mpp_um": 0.25}, True),
        ({"size_px": 48, "layout": "resize"}, False),
    ],
)
def test_padding_is_known_from_the_sizes(
    write_roi: WriteRoi, tmp_path: Path, changes: dict[str, object], is_padded: bool
) -> None:
    source = write_roi("a", np.ones((40, 32), np.uint8))
    config = BuildConfig.model_validate({"classes": (1,), "ignore": (), **changes})
    manifest = build_store(source, tmp_path / "s.zarr", config)
    assert has_padding(manifest) == is_padded
    assert (ignored_share(manifest) > 0) == is_padded


def test_small_numbers_of_pixels_are_not_shown_as_nothing(
    write_roi: WriteRoi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:30, :50], labels[50:, 50:52] = 1, 2
    store = tmp_path / "s.zarr"
    build_store(write_roi("a", labels), store, BuildConfig(size_px=64, classes=(1, 2), ignore=()))
    print_classes(class_counts(open_store(store)))
    printed = capsys.readouterr().out
    assert "0.0015" in printed
    assert "< 0.0001" in printed
