"""`bcss-train predict`: the same masks as evaluation and Meta's predictor, whatever happens on the way."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from geojson_pydantic import FeatureCollection
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor

from prep.annotation.masks import plan_masks
from prep.derive.tiles import resize_to_tile
from prep.sample.flat_tissue import draw_flat
from schemas.command import console
from schemas.store.store import Store
from tests.folders import bytes_of
from tests.integration.pages import ROOT
from tests.train.predict.conftest import feature, rectangle, write_geojson
from tests.train.predict.conftest import run_predict as _run
from tests.warm_start import WarmProcess
from train.model.promptable import PromptableSam
from train.predict import ImagePredictor, load_predictor, one_image
from train.predict.automatic import AutomaticOptions
from train.predict.prompted import predict_prompted
from train.predict.settings import PredictSettings, PromptOptions
from train.prompts.object_prompt import ObjectPrompt
from train.prompts.region import on_grid
from train.results.placed_object import placed
from train.score.answers import tile_prompts
from train.slide.image_source import Picture
from train.transforms.sample import pad_prompts

ALL = "geojson,masks,coco,csv,overlay"
EVERYTHING = ["--automatic", "--grid", "4", "--iou-threshold", "0", "--stability-threshold", "0"]


def _labels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_boxes_of_a_tile_give_the_masks_of_evaluation(
    store: Store, checkpoint: Path, predictor: ImagePredictor, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch
) -> None:
    picture, prompts, index = tile
    out = tmp_path / "out"
    assert _run(monkeypatch, checkpoint, picture, "--prompts", prompts, "--out", out, "--format", ALL) == 0
    record = store[index]
    coords, labels = pad_prompts(tile_prompts(store, record, "box", negatives=False))
    answer = predictor.predict(predictor.views(record.image), coords, labels)
    masks = answer.masks()
    coco = COCO(str(out / "tile.coco.json"))
    with warnings.catch_warnings():
        # pycocotools has not followed NumPy's protocol.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = [coco.annToMask(annotation).astype(bool) for annotation in coco.loadAnns(coco.getAnnIds())]
    # Objects without a pixel are left out.
    np.testing.assert_array_equal(found, [mask for mask in masks if mask.any()])
    names = {category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert names == {"object", *(f"class {code}" for code in record.class_ids.tolist())}


def test_automatic_masks_of_a_tile_are_the_published_ones(trained_predictor: ImagePredictor) -> None:
    model = trained_predictor.model
    roi, _ = draw_flat(256, 256, np.random.default_rng(0))
    # Half the resolution, as in training, on a window of the network's size.
    image = np.asarray(cv2.resize(roi, (128, 128), interpolation=cv2.INTER_AREA), np.uint8)

    def generated(stability: float, nms: float) -> list[dict[str, Any]]:
        generator = SAM2AutomaticMaskGenerator(
            model.sam, points_per_side=6, pred_iou_thresh=0.3, stability_score_thresh=stability, box_nms_thresh=nms
        )
        sizes = [(128 // step, 128 // step) for step in (4, 8, 16)]
        generator.predictor._bb_feat_sizes = sizes  # pyright: ignore[reportPrivateUsage]
        return generator.generate(image)

    theirs = generated(0.8, 0.7)
    # Both filters leave something out.
    assert 10 < len(theirs) < min(len(generated(0.8, 1.0)), len(generated(0.0, 0.7)))
    found = ImagePredictor(model, torch.device("cpu")).automatic(image, AutomaticOptions(6, 0.3, 0.8, 0.7))
    own = sorted(zip(found.ious.tolist(), found.stability.tolist(), found.masks, strict=True), key=lambda row: row[:2])
    assert len(own) == len(theirs)
    for (iou, stability, mask), item in zip(
        own, sorted(theirs, key=lambda item: (item["predicted_iou"], item["stability_score"])), strict=True
    ):
        assert (iou, stability) == pytest.approx((item["predicted_iou"], item["stability_score"]), abs=1e-4)
        assert np.mean(mask == item["segmentation"]) > 0.999


def test_geojson_fills_to_the_labels_and_is_what_qupath_reads(
    checkpoint: Path, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch
) -> None:
    picture, prompts, _ = tile
    out = tmp_path / "out"
    assert _run(monkeypatch, checkpoint, picture, "--prompts", prompts, "--out", out) == 0
    content = json.loads((out / "tile.geojson").read_text())
    FeatureCollection.model_validate(content)
    labels = _labels(out / "tile.labels.png")
    (tmp_path / "pictures").mkdir()
    picture.rename(tmp_path / "pictures" / "tile.png")
    plan = plan_masks(out / "tile.geojson", tmp_path / "pictures")
    drawn = np.zeros(labels.shape, int)
    areas = [(number, *area.pixels(*labels.shape)) for number, area in enumerate(plan.shapes["tile"], start=1)]
    # A smaller object is drawn over a larger one.
    for number, window, pixels in sorted(areas, key=lambda area: -np.count_nonzero(area[2])):
        drawn[window][pixels] = number
    np.testing.assert_array_equal(drawn, labels)
    for item in content["features"]:
        assert item["properties"]["objectType"] == "annotation"
        assert item["properties"]["classification"].keys() == {"name", "color"}
        assert item["properties"]["measurements"].keys() == {"Area px^2", "Area um^2", "Estimated IoU", "Stability"}
    assert len({item["id"] for item in content["features"]}) == len(content["features"])
    rows = (out / "tile.csv").read_text().splitlines()
    assert len(rows) == len(content["features"]) + 1
    page = (out / "index.html").read_text()
    assert "tile.overlay.jpg" in page
    shown = Counter(
        (item["properties"]["classification"]["name"], *item["properties"]["classification"]["color"])
        for item in content["features"]
    )
    for (name, *color), count in shown.items():
        assert f'background: #{bytes(color).hex()}"></i>{count} {name}' in page


def test_masks_are_those_of_metas_predictor(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PromptableSam("nano", 1024).eval()
    torch.save({"model": model.sam.state_dict(), "model_size": "nano", "image_size": 1024}, tmp_path / "n.pt")
    ours = load_predictor(tmp_path / "n.pt", "cpu")
    image = np.tile(store[0].image, (8, 8, 1))
    boxes = [[100, 200, 400, 700], [0, 0, 1023, 1023]]
    found = ours.predict(image, boxes=boxes)
    meta = SAM2ImagePredictor(model.sam)
    meta.set_image(image)
    for box, mask, iou in zip(boxes, found.masks, found.ious, strict=True):
        theirs, ious, _ = meta.predict(box=np.array(box), multimask_output=False)
        assert np.mean(theirs[0].astype(bool) == mask) > 0.9999
        assert iou == pytest.approx(float(ious[0]), abs=1e-4)


def test_slide_gives_what_a_picture_of_its_pixels_gives(
    checkpoint: Path, real_data: Path, tmp_path: Path, monkeypatch
) -> None:
    openslide = pytest.importorskip("openslide", reason="openslide is not installed")
    slide = real_data.parent / "slides" / "CMU-1-Small-Region.svs"
    part = (700, 1850, 140, 120)
    pixels = np.asarray(openslide.OpenSlide(str(slide)).read_region((0, 0), 0, (2220, 2967)).convert("RGB"))
    Image.fromarray(pixels).save(tmp_path / "CMU-1-Small-Region.png", compress_level=1)
    region = ",".join(map(str, part))
    write_geojson(
        tmp_path / "p.geojson",
        [rectangle((720, 1870, 780, 1930)), feature({"type": "Point", "coordinates": [800.5, 1940.5]})],
    )
    found = {}
    for name, source, flags in (
        ("slide", slide, []),
        ("png", tmp_path / "CMU-1-Small-Region.png", ["--source-mpp", "0.499"]),
    ):
        for how in (EVERYTHING, ["--prompts", tmp_path / "p.geojson"]):
            out = tmp_path / f"{name} {how[0]}"
            assert _run(monkeypatch, checkpoint, source, *how, "--region", region, "--out", out, *flags) == 0
            found[name, how[0]] = (out / "CMU-1-Small-Region.geojson").read_text()
    for how in ("--automatic", "--prompts"):
        assert found["slide", how] == found["png", how]
        points = np.array([point for item in json.loads(found["slide", how])["features"] for point in _points(item)])
        # Coordinates are those of level 0, although the model works at twice the resolution.
        assert (points >= part[:2]).all()
        assert (points <= np.add(part[:2], part[2:])).all()


def _points(item: dict) -> list[list[float]]:
    geometry = item["geometry"]
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [point for rings in parts for ring in rings for point in ring]


@pytest.mark.slow
def test_killed_command_ends_with_the_same_bytes_when_repeated(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    image = np.concatenate([store[index].image for index in range(6)], 0)
    Image.fromarray(np.concatenate([image, image[::-1], image], 1)).save(tmp_path / "big.png")
    command = [sys.executable, "-m", "train.cli", "predict", str(checkpoint), str(tmp_path / "big.png"), *EVERYTHING]
    results = []
    for name in ("whole", "killed"):
        out = tmp_path / name
        if name == "killed":
            first = WarmProcess([*command, "--out", str(out), "--device", "cpu"])
            while not list(out.glob(".work/big/rows/*.npz")):
                assert first.poll() is None
                time.sleep(0.01)
            os.kill(first.pid, signal.SIGKILL)
            first.communicate()
        again = WarmProcess([*command, "--out", str(out), "--device", "cpu"])
        _, errors = again.communicate()
        assert again.returncode == 0, errors
        results.append({key: data for key, data in bytes_of(out).items() if not key.startswith(".")})
    assert results[0] == results[1]
    assert len(results[0]) == 5


@pytest.mark.slow
def test_processes_share_images_and_give_the_same_files(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(store[index].image).save(tmp_path / "images" / f"t{index}.png")
    arguments = ["predict", str(checkpoint), str(tmp_path / "images"), *EVERYTHING, "--device", "cpu"]
    single = [sys.executable, "-m", "train.cli"]
    several = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "train.cli",
    ]
    for name, program in (("one", single), ("two", several)):
        command = [*program, *arguments, "--out", str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        {key: data for key, data in bytes_of(tmp_path / name).items() if not key.startswith(".")}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 3 * 4 + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [folder / "gone.png", "--automatic"], "gone.png: does not exist"),
        (lambda folder: [folder, "--automatic"], "holds no image or slide"),
        (lambda folder: [_linked(folder, "out"), "--automatic"], "--out: is the folder of the images .*out, where"),
        (lambda folder: [_damaged(folder), "--automatic"], "damaged.png"),
        (lambda folder: [_damaged(folder, ".svs"), "--automatic"], "cannot be read as a slide"),
        (lambda folder: [_picture(folder), "--automatic", "--region", "0,0,999,5"], "is not in .*64 x 64 px"),
        (lambda folder: [_picture(folder), "--prompts", _outside(folder)], "has the prompt 1 outside, at 500, 500"),
        (
            lambda folder: [_picture(folder), _picture(folder, "q.png"), "--prompts", _second_outside(folder)],
            "q.png: has the prompt far outside, at 64, 3",
        ),
        (
            lambda folder: [_picture(folder), "--prompts", _of_another(folder)],
            "has no prompt for p.png; it names q",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch, capsys, make, message: str
) -> None:
    pytest.importorskip("openslide", reason="openslide is not installed")
    folder = tmp_path / "data"
    folder.mkdir()
    assert _run(monkeypatch, checkpoint, *make(folder), "--out", tmp_path / "out") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    import re

    assert re.search(message, line), line
    assert not list((tmp_path / "out").glob("*.geojson"))


def _picture(folder: Path, name: str = "p.png") -> Path:
    Image.new("RGB", (64, 64)).save(folder / name)
    return folder / name


def _linked(folder: Path, name: str) -> Path:
    """A folder with a picture beside `folder`, by another path."""
    target = folder.parent / name
    target.mkdir()
    _picture(target)
    (folder / "link").symlink_to(target)
    return folder / "link"


def _damaged(folder: Path, suffix: str = ".png") -> Path:
    (folder / f"damaged{suffix}").write_bytes(b"\x89PNG and nothing else")
    return folder / f"damaged{suffix}"


def _outside(folder: Path) -> Path:
    write_geojson(folder / "o.geojson", [rectangle((500, 500, 600, 600))])
    return folder / "o.geojson"


def _second_outside(folder: Path) -> Path:
    (folder / "o.csv").write_text("image,object,x,y\np.png,near,1,2\nq.png,far,63,3\nq.png,far,64,3\n")
    return folder / "o.csv"


def _of_another(folder: Path) -> Path:
    (folder / "o.csv").write_text("image,object,x,y\nq.png,1,2,3\nr.png,1,2,3\n")
    return folder / "o.csv"


def test_flags_without_effect_are_refused(
    checkpoint: Path, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch, capsys
) -> None:
    picture, prompts, _ = tile
    base = (checkpoint, picture, "--out", tmp_path / "out")
    for flag, value in (
        ("--grid", 7),
        ("--overlap", 0.5),
        ("--iou-threshold", 0.9),
        ("--stability-threshold", 0.9),
        ("--nms", 0.5),
        ("--batch-size", 2),
        ("--workers", 2),
    ):
        assert _run(monkeypatch, *base, "--prompts", prompts, flag, value) == 2
        assert f"{flag} has no effect with --prompts" in " ".join(capsys.readouterr().err.split())
    for flags, message in (
        (("--model", "large"), "--model large: matches no given checkpoint; they have nano; leave --model out"),
        (("--image-size", 512), "--image-size 512: matches no given checkpoint; they have 128; leave --image-size out"),
    ):
        assert _run(monkeypatch, *base, "--automatic", *flags) == 1
        assert message in capsys.readouterr().err
    assert _run(monkeypatch, *base, "--automatic", "--region", "\u00b2,0,9,9") == 2
    assert "is not X,Y,W,H in pixels" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert _run(monkeypatch, *base, "--prompts", prompts, "--model", "nano", "--image-size", 128) == 0


def test_slide_damaged_in_one_tile_names_the_place(checkpoint: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("openslide", reason="openslide is not installed")
    pixels = np.random.default_rng(0).integers(0, 255, (768, 512, 3), np.uint8)
    slide = tmp_path / "slide.tif"
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(slide) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]  # pyright: ignore
    whole = slide.read_bytes()
    slide.write_bytes(whole[:offset] + b"\0" * count + whole[offset + count :])
    command = (checkpoint, slide, *EVERYTHING, "--source-mpp", "0.25", "--out", tmp_path / "out")
    assert _run(monkeypatch, *command) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "slide.tif at " in line
    assert "cannot be read" in line
    # A region without the damaged tile gives a result.
    assert _run(monkeypatch, *command[:-1], tmp_path / "upper", "--region", "0,0,512,500") == 0
    assert (tmp_path / "upper" / "slide.geojson").exists()


def test_full_disk_is_one_line_and_the_same_command_goes_on(
    checkpoint: Path, store: Store, tmp_path: Path, monkeypatch, capsys
) -> None:
    for index in range(2):
        Image.fromarray(store[index].image).save(tmp_path / f"t{index}.png")
    pictures = (tmp_path / "t0.png", tmp_path / "t1.png")
    out = tmp_path / "disk"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(out)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs more rights than this user has")
    try:
        flags = (*EVERYTHING, "--format", "geojson,masks,coco")
        assert _run(monkeypatch, checkpoint, *pictures, *flags, "--out", out) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert "No space left" in line
        subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
        assert _run(monkeypatch, checkpoint, *pictures, *flags, "--out", out) == 0
        assert _run(monkeypatch, checkpoint, *pictures, *flags, "--out", tmp_path / "whole") == 0
        found, whole = (
            {key: data for key, data in bytes_of(folder).items() if not key.startswith(".")}
            for folder in (out, tmp_path / "whole")
        )
        assert found == whole
    finally:
        subprocess.run(["umount", "--lazy", str(out)], check=True)


def test_other_settings_need_overwrite_and_a_locked_folder_is_refused(
    checkpoint: Path, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch, capsys
) -> None:
    picture, prompts, _ = tile
    base = (checkpoint, picture, "--prompts", prompts, "--out", tmp_path / "out")
    assert _run(monkeypatch, *base) == 0
    assert _run(monkeypatch, *base) == 0
    assert "tile.png is up to date" in capsys.readouterr().err
    assert _run(monkeypatch, *base, "--threshold", "0.1") == 1
    assert "holds results of tile.png from another model, image or setting" in capsys.readouterr().err
    assert _run(monkeypatch, *base, "--threshold", "0.1", "--overwrite") == 0
    assert _run(monkeypatch, *base, "--automatic") == 2
    from train.runtime.folder_lock import locked_folder

    with locked_folder(tmp_path / "out"):
        assert _run(monkeypatch, *base, "--overwrite") == 1
    assert "is in use by another run" in capsys.readouterr().err


def test_overwrite_leaves_no_file_of_the_earlier_run(
    checkpoint: Path, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch
) -> None:
    picture, prompts, _ = tile
    base = (checkpoint, picture, "--prompts", prompts, "--out", tmp_path / "out")
    assert _run(monkeypatch, *base, "--format", ALL) == 0
    before = (tmp_path / "out" / "tile.geojson").read_bytes()
    (tmp_path / "out" / "of the user.txt").touch()
    assert _run(monkeypatch, *base, "--format", "geojson", "--threshold", "0.1", "--overwrite") == 0
    left = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert left == {"tile.geojson", "of the user.txt"}
    assert (tmp_path / "out" / "tile.geojson").read_bytes() != before


def test_page_shows_all_overlays_in_the_folder_and_no_page_of_others_is_touched(
    checkpoint: Path, store: Store, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"
    for index, name in enumerate("abc"):
        Image.fromarray(store[index].image).save(tmp_path / f"{name}.png")
    search = (*EVERYTHING, "--grid", "1", "--out", out)

    def predict(name: str, formats: str) -> int:
        return _run(monkeypatch, checkpoint, tmp_path / f"{name}.png", *search, "--format", formats, "--overwrite")

    def shown() -> list[str]:
        return re.findall(r'src="(.*?)"', (out / "index.html").read_text())

    assert predict("a", "csv") == 0
    (out / "index.html").write_text("the user's own")
    assert predict("a", "csv,geojson") == 0
    assert (out / "index.html").read_text() == "the user's own"
    assert predict("b", "overlay") == 0
    assert predict("c", "overlay") == 0
    assert predict("a", "csv") == 0
    assert shown() == ["b.overlay.jpg", "c.overlay.jpg"]
    assert predict("b", "csv") == 0
    assert shown() == ["c.overlay.jpg"]
    assert predict("c", "csv") == 0
    assert not (out / "index.html").exists()


@pytest.mark.parametrize("how", ["automatic", "prompts"])
def test_progress_and_summary_of_each_image(
    checkpoint: Path, store: Store, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    # Prompts need one window, whether or not the image is wider.
    times = 1 if how == "automatic" else 8
    for index in range(3 if how == "automatic" else 4):
        Image.fromarray(np.hstack([store[index].image] * times)).save(folder / f"t{index}.png")
    (tmp_path / "p.csv").write_text("image,object,x,y\n" + "".join(f"t{index}.png,1,60,60\n" for index in range(3)))
    # Each look at the clock takes a second, and a log file gets each step as a line.
    monkeypatch.setattr(one_image, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    monkeypatch.setattr(console, "LOG_EVERY_S", 0.0)
    flags = EVERYTHING if how == "automatic" else ["--prompts", tmp_path / "p.csv"]
    assert _run(monkeypatch, checkpoint, folder, *flags, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    unit = "windows" if how == "automatic" else "objects"
    # A window has 128 x 128 px.
    lines = [f"predict t{index}: 1 of 1 {unit}, 00:01 done, 00:00 left, 0.02 Mpx/s" for index in range(3)]
    assert [line for line in said.err.splitlines() if line.startswith("predict t")] == lines
    for index, line in enumerate(said.out.splitlines()):
        assert line.startswith(f"t{index}: ")
        # The last image of the prompts has none, so no window of it was read.
        rate = "1.0 s, 0.00 Mpx/s" if index == 3 else "2.0 s, 0.01 Mpx/s"
        assert line.endswith(f"; {rate}; {tmp_path / 'out'}/t{index}.geojson and 3 more files there")


def test_smallest_area_counts_pixels_of_level_0(
    checkpoint: Path, tile: tuple[Path, Path, int], tmp_path: Path, monkeypatch
) -> None:
    picture, prompts, _ = tile
    # The model works at 0.25 um per pixel, so a pixel of the grid has four pixels of level 0.
    base = (checkpoint, picture, "--prompts", prompts, "--source-mpp", "0.125", "--format", "csv")
    assert _run(monkeypatch, *base, "--out", tmp_path / "all") == 0
    areas = _areas(tmp_path / "all" / "tile.csv")
    smallest = sorted(areas)[len(areas) // 2]
    assert min(areas) < smallest
    assert _run(monkeypatch, *base, "--min-area", f"{smallest:.0f}", "--out", tmp_path / "large") == 0
    assert _areas(tmp_path / "large" / "tile.csv") == [area for area in areas if area >= smallest]


def _areas(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["area_px"]) for row in csv.DictReader(file)]


def test_checkpoint_knows_its_tiles_and_resolution(store: Store, predictor: ImagePredictor) -> None:
    known = predictor.trained_on
    assert known is not None
    assert (known.tile_size_px, known.mpp_um, known.prompt) == (128, 0.25, "box")
    assert known.classes == store.manifest.classes
    assert predictor.window_px == 128


@pytest.mark.parametrize("size_xy", [(300, 200), (256, 100)])
def test_model_of_resized_images_sees_what_it_was_trained_on(
    predictor: ImagePredictor, monkeypatch: pytest.MonkeyPatch, size_xy: tuple[int, int]
) -> None:
    assert predictor.trained_on is not None
    monkeypatch.setattr(predictor, "trained_on", predictor.trained_on.model_copy(update={"layout": "resize"}))
    width, height = size_xy
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    trained = resize_to_tile(pixels, np.zeros((height, width), np.uint8), 128).image
    grid = one_image.grid_of(predictor, Picture(pixels), PredictSettings())
    np.testing.assert_array_equal(grid.read(0, 0, 128), trained)
    # The same box in pixels of the image and in pixels of the tile, whose last pixel is part of the prompt.
    box = (0.25 * width, 0.5 * height, 0.75 * width, height)
    (found,) = predict_prompted(predictor, grid, [*on_grid([ObjectPrompt("1", box)], grid)], PromptOptions(128))
    coords, labels = torch.tensor([[[32.0, 64.0], [95.0, 127.0]]]), torch.tensor([[2, 3]], dtype=torch.int32)
    expected = predictor.predict(predictor.views(trained), coords, labels).masks()[0]
    assert found is not None
    np.testing.assert_array_equal(found.within((0, 0, 128, 128)), expected)
    (item,) = placed([found], grid)
    assert item.area_px == pytest.approx(np.count_nonzero(expected) * width * height / 128**2)


def test_geojson_of_a_cropped_slide_counts_from_where_qupath_does(
    checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    openslide = pytest.importorskip("openslide", reason="openslide is not installed")

    bounds = {"x": "20", "y": "10", "width": "99", "height": "99"}

    class Cropped(openslide.OpenSlide):
        properties = MappingProxyType({f"openslide.bounds-{name}": value for name, value in bounds.items()})

    slide = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    tifffile.imwrite(slide, pixels, tile=(128, 128), photometric="rgb")
    write_geojson(tmp_path / "whole.geojson", [rectangle((60, 50, 110, 90), "tumor")])
    write_geojson(tmp_path / "cropped.geojson", [rectangle((40, 40, 90, 80), "tumor")])
    for name in ("whole", "cropped"):
        if name == "cropped":
            monkeypatch.setattr(openslide, "OpenSlide", Cropped)
        given = [slide, "--prompts", tmp_path / f"{name}.geojson", "--out", tmp_path / name, "--source-mpp", "0.25"]
        assert _run(monkeypatch, checkpoint, *given) == 0
    (whole,), (cropped,) = (
        json.loads((tmp_path / name / "slide.geojson").read_text())["features"] for name in ("whole", "cropped")
    )
    shift = [np.subtract(a, b) for a, b in zip(_points(whole), _points(cropped), strict=True)]
    np.testing.assert_array_equal(shift, [[20, 10]] * len(shift))
    for name in ("slide.labels.png", "slide.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cropped" / name).read_bytes()


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "tiled.tif"])
def test_picture_with_an_orientation_tag_is_predicted_upright(
    checkpoint: Path, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    stored = Image.fromarray(np.rot90(pixels))  # 160 high and 96 wide; tag 6 says: turn it clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    tagged, upright = tmp_path / "tagged", tmp_path / "upright"
    for folder in (tagged, upright):
        folder.mkdir()
    file = tagged / f"a.{kind.removeprefix('tiled.')}"
    if kind == "tiled.tif":  # OpenSlide takes it for a slide and would not turn it
        tifffile.imwrite(file, np.asarray(stored), tile=(64, 64), photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    else:
        stored.save(file, exif=exif)
    with Image.open(file) as image:
        ImageOps.exif_transpose(image.convert("RGB")).save(upright / "a.png")
    write_geojson(tmp_path / "boxes.geojson", [rectangle((100, 10, 150, 60)), rectangle((5, 50, 90, 95))])
    for folder in (tagged, upright):
        given = [folder, "--prompts", tmp_path / "boxes.geojson", "--out", folder / "out"]
        assert _run(monkeypatch, checkpoint, *given) == 0
    assert _labels(tagged / "out" / "a.labels.png").shape == (96, 160)
    assert _labels(tagged / "out" / "a.labels.png").any()
    assert caplog.text.count("orientation tag") == 1
    np.testing.assert_array_equal(_labels(tagged / "out" / "a.labels.png"), _labels(upright / "out" / "a.labels.png"))
    assert (tagged / "out" / "a.geojson").read_bytes() == (upright / "out" / "a.geojson").read_bytes()
