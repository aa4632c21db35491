from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.sample.tissue_class import STROMA, TUMOR
from prep.sample.write import SampleLook, write_sample
from schemas.errors import SourceError


def test_same_seed_gives_the_same_bytes_and_names_like_bcss(tmp_path: Path, sample_source: Path) -> None:
    stems = write_sample(tmp_path, rois=6, size_px=288, seed=1)
    for stem in stems:
        assert stem.startswith("TCGA-")
        for name in ("images", "masks"):
            path = Path(name) / f"{stem}.png"
            assert (tmp_path / path).read_bytes() == (sample_source / path).read_bytes()


def test_masks_are_palettized_and_hold_the_usual_classes(sample_source: Path) -> None:
    codes: set[int] = set()
    for path in (sample_source / "masks").iterdir():
        with Image.open(path) as mask:
            assert mask.mode == "P"
            assert mask.width != mask.height
            codes |= set(np.unique(np.asarray(mask)).tolist())
    assert codes == {0, 1, 2, 3, 4, 7, 18}


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").touch()
    with pytest.raises(SourceError, match=r"mine.png"):
        write_sample(tmp_path)


def test_each_look_has_patients_of_its_own_and_glands_have_pale_centers(tmp_path: Path) -> None:
    looks: tuple[SampleLook, ...] = ("plain", "varied", "textured", "glands")
    stems = {look: write_sample(tmp_path / look, rois=2, size_px=256, seed=3, look=look) for look in looks}
    assert len({name.split("_")[0] for names in stems.values() for name in names}) == 8
    for name in stems["glands"]:
        with Image.open(tmp_path / "glands" / "masks" / f"{name}.png") as mask:
            labels = np.asarray(mask)
        with Image.open(tmp_path / "glands" / "images" / f"{name}.png") as picture:
            image = np.asarray(picture).astype(int)
        assert set(np.unique(labels)) == {TUMOR, STROMA}
        pale = image.min(2) > 225
        assert 0.1 < pale[labels == TUMOR].mean() < 0.5
    grounds = [
        np.median(np.asarray(Image.open(path)).reshape(-1, 3), 0)
        for path in sorted((tmp_path / "varied" / "images").iterdir())
    ]
    assert np.abs(grounds[0] - grounds[1]).max() > 5
