"""The targets of fuzzing by coverage: how bytes are read as each kind of file, and valid files to start from."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prep.source.case_table import read_case_table
from prep.source.class_map import read_class_map
from prep.source.split import file_split
from schemas.picture import picture_file
from schemas.store.file_list import FileList
from schemas.store.shards import with_crc32c
from schemas.store.store import open_store
from tests.faults import test_hostile_annotations as annotations
from tests.faults import test_hostile_checkpoints as checkpoints
from tests.faults import test_hostile_masks as masks
from tests.faults import test_hostile_prompts as prompts
from tests.faults import test_hostile_settings as texts
from tests.faults import test_hostile_stores as stores
from train.config import read_config
from train.model.promptable import PromptableSam


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        attempt: Reads bytes as such a file; raises BcssError to refuse them.
        seeds: Inputs that fuzzing starts from.
    """

    attempt: Callable[[bytes], object]
    seeds: Sequence[bytes]


def image(folder: Path) -> Target:
    """Masks and images."""
    picture_file.MAX_ROI_PX = masks.SMALL_BOUND_PX
    path = folder / "roi.png"
    return Target(_written(path, masks.use), masks.valid_files())


def class_map_json(folder: Path) -> Target:
    """Class maps in JSON."""
    return Target(_written(folder / "map.json", read_class_map), [json.dumps(texts.CLASSES["classes"]).encode()])


def class_map_tsv(folder: Path) -> Target:
    """Class maps in TSV."""
    return Target(_written(folder / "map.tsv", read_class_map), [texts.TSV])


def split_file(folder: Path) -> Target:
    """Files that divide patients into splits."""
    return Target(_written(folder / "split.csv", partial(file_split, texts.ROIS)), [texts.CSV])


def case_table(folder: Path) -> Target:
    """Tables of cases."""
    return Target(_written(folder / "cases.csv", read_case_table), [annotations.table(folder)])


def annotation_json(folder: Path) -> Target:
    """COCO, GeoJSON and Labelme files."""
    folder = annotations.with_image(folder)
    seeds = [json.dumps(content).encode() for content in (annotations.COCO, annotations.GEOJSON, annotations.LABELME)]
    return Target(_written(folder / "a.json", annotations.draw), seeds)


def annotation_yolo(folder: Path) -> Target:
    """Label files of YOLO."""
    folder = annotations.with_image(folder)
    (folder / "labels").mkdir()
    path = folder / "labels" / "a.txt"
    return Target(_written(path, lambda path: annotations.draw(path.parent)), [annotations.YOLO])


def prompt_json(folder: Path) -> Target:
    """Prompts in GeoJSON and COCO."""
    seeds = [json.dumps(content).encode() for content in (annotations.GEOJSON, prompts.COCO_BOXES)]
    return Target(_written(folder / "p.json", prompts.use), seeds)


def prompt_table(folder: Path) -> Target:
    """Prompts in CSV."""
    return Target(_written(folder / "p.csv", prompts.use), [prompts.CLICKS, prompts.BOXES])


def settings(folder: Path) -> Target:
    """Settings of a run."""
    flags = {"optimizer.lr": 1e-3, "augment.orientation": True}
    return Target(
        _written(folder / "run.yaml", lambda path: read_config(path, flags)), [json.dumps(texts.RUN).encode()]
    )


def store(folder: Path) -> Target:
    """Any file of a store: one byte chooses it, one says whether to correct its checksum, the rest is content."""
    FileList.check = lambda _files, _key: None  # pyright: ignore[reportAttributeAccessIssue]
    path = stores.small_store(folder)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    whole = [file.read_bytes() for file in files]
    tried = 0

    def attempt(data: bytes) -> None:
        nonlocal tried
        tried += 1
        number, checksum = (data[0] % len(files), data[1] % 2) if len(data) > 1 else (0, 0)
        files[number].write_bytes(with_crc32c(data[2:-4]) if checksum else data[2:])
        try:
            opened = open_store(path)
            stores.use(opened)
            if not tried % 10:
                stores.inspect(opened, folder / f"view{tried}")
        finally:
            files[number].write_bytes(whole[number])

    return Target(attempt, [bytes([number, 0]) + data for number, data in enumerate(whole)])


def checkpoint(folder: Path) -> Target:
    """The pickle of a checkpoint, in an archive that is otherwise intact."""
    run = checkpoints.untrained()
    path, model, content = folder / "checkpoint.pt", PromptableSam("nano", 128), checkpoints.small_content(run)
    with zipfile.ZipFile(io.BytesIO(checkpoints.encoded(content))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (pickle_name,) = (name for name in entries if name.endswith("data.pkl"))

    def attempt(data: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, data if name == pickle_name else entry)
        try:
            checkpoints.use(path, model, run)
        finally:
            path.with_name("checkpoint.damaged").unlink(missing_ok=True)

    return Target(attempt, [entries[pickle_name]])


TARGETS: dict[str, Callable[[Path], Target]] = {
    make.__name__: make
    for make in (
        *(image, class_map_json, class_map_tsv, split_file, case_table, annotation_json, annotation_yolo),
        *(prompt_json, prompt_table, settings, store, checkpoint),
    )
}


def _written(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def attempt(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return attempt
