from pathlib import Path

from prep.summary import summarize_store
from schemas.store import Store


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


def test_sizes_are_those_on_disk(store: Store) -> None:
    summary = summarize_store(store)
    for array in summary.arrays:
        files = [path for path in (Path(store.path) / array.name).rglob("*") if path.is_file()]
        assert array.stored_bytes == sum(path.stat().st_size for path in files)
    assert {array.name: array.raw_bytes for array in summary.arrays}["images"] == len(store) * 128 * 128 * 3
