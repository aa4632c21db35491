"""Workers of a cluster that the build has lost sight of must not disturb the workers that continue."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.source.discover import find_rois
from prep.write import roi_folder
from prep.write.roi_folder import RoiTask, write_roi_folder
from schemas.errors import SourceError
from schemas.layout import array_specs
from tests.folders import bytes_of

CONFIG = BuildConfig(size_px=64)


@pytest.fixture
def source(write_roi) -> Path:
    return write_roi("a", np.full((100, 70), 1, np.uint8))


def _task(source: Path, directory: Path) -> RoiTask:
    (roi,) = (roi for roi in find_rois(source, CONFIG.folders).rois if roi.frame_id == "a")
    specs = tuple(array_specs(CONFIG.size_px, "uint8", CONFIG.point_counts))
    return RoiTask(roi, "train", source, directory, CONFIG, specs)


def test_worker_that_outlives_a_build_does_not_create_its_folder_again(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_roi_folder(_task(source, tmp_path / "s.zarr.partial" / "rois" / "0"))
    assert list(tmp_path.iterdir()) == [source]


def test_slower_of_two_workers_keeps_the_folder_of_the_faster(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _task(source, tmp_path / "rois" / "0")
    task.directory.parent.mkdir()
    decode = roi_folder.decode_roi

    def overtaken(*given):
        monkeypatch.setattr(roi_folder, "decode_roi", decode)
        written.append(write_roi_folder(task))
        written.append(task.directory.stat().st_ino)
        return decode(*given)

    written: list[object] = []
    monkeypatch.setattr(roi_folder, "decode_roi", overtaken)
    assert write_roi_folder(task) == written[0]
    assert written[1:] == [task.directory.stat().st_ino]
    assert list(task.directory.parent.iterdir()) == [task.directory]


def test_worker_that_outlives_a_build_of_another_plan_does_not_write_into_this_one(
    source: Path, write_roi, tmp_path: Path
) -> None:
    other, out = BuildConfig(size_px=128), tmp_path / "s.zarr"
    write_roi("0", np.full((40, 40), 1, np.uint8))
    build_store(source, tmp_path / "alone.zarr", other)
    write_roi("b", Image.new("RGB", (40, 40)))
    with pytest.raises(SourceError, match="color"):
        build_store(source, out, CONFIG)
    (directory,) = tmp_path.glob("s.zarr.partial/rois/*000001")
    for name in ("images", "masks"):
        (source / name / "b.png").unlink()

    def outlive(_: object) -> None:
        write_roi_folder(_task(source, directory))

    # The old worker ends after the first ROI of this build, and before the second, which has the old worker's number.
    build_store(source, out, other, BuildOptions(overwrite=True, on_progress=outlive))
    assert bytes_of(out) == bytes_of(tmp_path / "alone.zarr")
