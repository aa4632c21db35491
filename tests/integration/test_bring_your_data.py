"""Each row of the page "Bring your data" runs, on data of that kind."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prep.sample.write import write_sample
from prep.verify import verify_store
from schemas.store.store import Store, open_store
from tests.integration.pages import ROOT
from tests.warm_commands import warm_commands

PAGE = ROOT / "docs" / "how-to" / "bring-your-data.md"
SIZE = 64
RING = [[8, 8], [40, 8], [40, 40], [8, 40], [8, 8]]


def _commands() -> list[list[str]]:
    rows = re.findall(r"^\| .* \| `(bcss-prep .*)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(row) for row in rows]


def _pair(image: Path, mask: Path | None, number: int, kind: str = "classes") -> None:
    generator = np.random.default_rng(number)
    for path in filter(None, (image, mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(image)
    codes = np.kron(generator.permutation([0, 1, 2, 1]).reshape(2, 2), np.ones((SIZE // 2, SIZE // 2), int))
    values = {
        "classes": codes.astype(np.uint8),
        "colors": np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[codes],
        "instances": (np.arange(1, 17).reshape(4, 4).repeat(16, 0).repeat(16, 1) * (codes > 0)).astype(np.uint16),
    }
    if mask:
        Image.fromarray(values[kind]).save(mask)


def _make(root: Path) -> None:
    """Write data of each kind."""
    data = root / "data"
    write_sample(data / "BCSS", rois=6, size_px=128)
    for n in range(6):
        _pair(data / f"any/images/{n}.png", data / f"any/masks/{n}.png", n)
        _pair(data / f"VOC/JPEGImages/{n}.jpg", data / f"VOC/SegmentationClass/{n}.png", n)
        _pair(data / f"nnunet/imagesTr/{n}_0000.png", data / f"nnunet/labelsTr/{n}.png", n)
        _pair(data / f"flat/{n}.png", data / f"flat/{n}_mask.png", n)
        _pair(data / f"patients/p{n // 2}/images/{n % 2}.png", data / f"patients/p{n // 2}/masks/{n % 2}.png", n)
        _pair(data / f"rgb/images/{n}.png", data / f"rgb/masks/{n}.png", n, "colors")
        _pair(data / f"nuclei/images/{n}.png", data / f"nuclei/masks/{n}.png", n, "instances")
        _pair(data / f"nuclei/images/{n}.png", data / f"nuclei/classes/{n}.png", n)
        for name in ("coco", "qupath", "labelme", "yolo"):
            _pair(data / f"{name}/images/{n}.png", None, n)
        for frame in range(2):
            place = f"480p/scene{n}/{frame:05d}"
            _pair(data / f"DAVIS/JPEGImages/{place}.jpg", data / f"DAVIS/Annotations/{place}.png", n, "instances")
    _pair(data / "VOC/JPEGImages/unlabeled.jpg", None, 9)
    labels = {"background": 0, "gland": 1, "stroma": 2}
    (data / "nnunet" / "dataset.json").write_text(json.dumps({"labels": labels, "numTraining": 2}))
    (root / "classes.tsv").write_text("code\tname\n1\tgland\n2\tstroma\n")
    (root / "colors.tsv").write_text("code\tname\tcolor\n0\tnone\t#000000\n1\tgland\t#ff0000\n2\tstroma\t#0000ff\n")
    rows = [f"data/any/images/{n}.png,data/any/masks/{n}.png,p{n}" for n in range(6)]
    (root / "cases.csv").write_text("\n".join(["image,mask,patient", *rows]))
    (root / "ids.csv").write_text("\n".join(["id,class", *(f"{n},{1 + n % 2}" for n in range(1, 17))]))
    rows = [f"data/nuclei/images/{n}.png,data/nuclei/masks/{n}.png,stack{n // 2}" for n in range(6)]
    (root / "frames.csv").write_text("\n".join(["image,mask,sequence", *rows]))
    _make_outlines(root)


def _make_outlines(root: Path) -> None:
    """Write the same square for each image, in four formats."""
    flat = [value for point in RING for value in point]
    coco: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": SIZE, "height": SIZE} for n in range(6)],
        "categories": [{"id": 4, "name": "gland"}],
        "annotations": [{"image_id": n, "category_id": 4, "segmentation": [flat]} for n in range(6)],
    }
    (root / "coco.json").write_text(json.dumps(coco))
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [RING]},
        "properties": {"objectType": "annotation", "classification": {"name": "gland", "color": [9, 9, 9]}},
    }
    shares = " ".join(str(value / SIZE) for value in flat)
    texts = {
        "qupath/annotations/{}.geojson": json.dumps({"type": "FeatureCollection", "features": [feature]}),
        "labelme/annotations/{}.json": json.dumps({"shapes": [{"label": "gland", "points": RING}]}),
        "yolo/labels/{}.txt": f"0 {shares}\n",
    }
    for place, text in texts.items():
        for n in range(6):
            path = root / "data" / place.format(n)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def _run(programs: Path, command: list[str], root: Path) -> None:
    if command[1] == "build":
        command = [*command, "--size", str(SIZE), "--workers", "1"]
    program = [str(programs / command[0]), *command[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@pytest.mark.timeout(300)
def test_each_row_of_the_page_runs(tmp_path: Path) -> None:
    _make(tmp_path)
    (tmp_path / "programs").mkdir()
    with warm_commands(tmp_path / "programs") as programs:
        for command in _commands():
            _run(programs, command, tmp_path)
    stores = {path.stem: open_store(str(path)) for path in tmp_path.glob("*.zarr")}
    assert len(stores) == len([command for command in _commands() if command[1] == "build"]) == 16
    for name, store in stores.items():
        assert verify_store(store) == [], name
        assert len({*store.column("tiles/split")}) == (1 if name == "cohort" else 3), name
    # The same pixels in another form give the same segments.
    for name in ("nnunet", "flat", "voc", "rgb"):
        assert _segments(stores[name]) == _segments(stores["any"]), name
    assert [info.name for info in stores["voc"].manifest.classes] == ["aeroplane", "bicycle"]
    assert set(stores["patients"].column("tiles/patient").tolist()) == {"p0", "p1", "p2"}
    for name in ("typed", "listed"):
        assert [info.name for info in stores[name].manifest.classes] == ["gland", "stroma"]
    drawn = [np.asarray(Image.open(tmp_path / "data" / name / "masks" / "0.png")) > 0 for name in _OUTLINES]
    for mask in drawn:
        assert mask[8:40, 8:40].all()
        assert mask.sum() == 32 * 32


_OUTLINES = ("coco", "qupath", "labelme", "yolo")


def _segments(store: Store) -> list[bytes]:
    order = np.argsort(store.column("tiles/frame_id"))
    return [store[int(index)].segments.tobytes() for index in order]
