"""The distributions hold only the project's code, and run without a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from train.backbone.nano_start import NANO_START

ROOT = Path(__file__).parents[2]
PACKAGES = ("prep", "schemas", "train")
NAME = "bcss_sam2-0.1.0"
EGG = ("PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt")
METADATA = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")

pytest.importorskip("setuptools", reason="setuptools, which builds the distributions, is not installed")

BUILD_SDIST = "from setuptools import build_meta; build_meta.build_sdist('dist')"
BUILD_WHEEL = "from setuptools import build_meta; build_meta.build_wheel('dist')"


def _run(*command: object, cwd: Path) -> str:
    # Remove PYTHONPATH: a checkout on the path would hide what the wheel lacks.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the checkout with its untracked files."""
    copy = tmp_path_factory.mktemp("sdist") / "project"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "demo", "*.zarr", "*.pt")
    shutil.copytree(ROOT, copy, ignore=left_out)
    shutil.copy(NANO_START, copy / NANO_START.relative_to(ROOT))
    # Remove only the data set's folder, because `train/data` is a package.
    shutil.rmtree(copy / "data")
    _run(sys.executable, "-c", BUILD_SDIST, cwd=copy)
    (found,) = (copy / "dist").iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built only from the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    _run(sys.executable, "-c", BUILD_WHEEL, cwd=folder / NAME)
    (found,) = (folder / NAME / "dist").iterdir()
    return found


def _sources() -> set[str]:
    """Return the paths of all files of the packages in the checkout."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts]
    return {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}


def test_source_distribution_holds_the_packages_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {member.name for member in archive.getmembers() if member.isfile()}
    own = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    egg = {f"bcss_sam2.egg-info/{name}" for name in EGG}
    assert held == {f"{NAME}/{name}" for name in own | egg | _sources()}


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        scripts = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    assert held == _sources() | {f"{NAME}.dist-info/{name}" for name in METADATA}
    data = ("train/output/report.html.j2", "train/export/model_card.md.j2", "train/backbone/nano_start.pt")
    assert {*data, *(f"{package}/py.typed" for package in PACKAGES)} <= held
    assert "bcss-prep = prep.cli:main" in scripts
    assert "bcss-train = train.cli:main" in scripts
    assert "bcss.jpegxl = schemas.store.jpegxl:JpegXlCodec" in scripts
    assert "Requires-Python: >=3.11" in metadata


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script folder of a new environment with the wheel; its dependencies come from the tests' environment."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=wheel.parent)
    python = environment / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel, cwd=wheel.parent)
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(_run(python, "-c", code, cwd=wheel.parent).strip())
    lent = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    # A line in a `.pth` file adds the folder, but not its own `.pth` files, which would add an editable install.
    (site / "lent.pth").write_text("".join(f"{folder}\n" for folder in sorted(lent)))
    return environment / "bin"


def test_wheel_runs_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import prep, schemas, train; print(prep.__file__, schemas.__file__, train.__file__)"
    for path in _run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)
    _run(installed / "bcss-prep", "sample", "src", "--rois", 2, "--size", 128, cwd=tmp_path)
    _run(installed / "bcss-prep", "build", "src", "--out", "s.zarr", "--size", 64, "--workers", 2, cwd=tmp_path)
    assert "intact" in _run(installed / "bcss-prep", "verify", "s.zarr", cwd=tmp_path)
    small = (
        "--model",
        "nano",
        "--image-size",
        128,
        "--max-steps",
        1,
        "--batch-size",
        1,
        "--workers",
        0,
        "--device",
        "cpu",
    )
    _run(installed / "bcss-train", "fit", "s.zarr", "--out", "run", *small, cwd=tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "checkpoint.pt").exists()
    # The template of the report is a data file of the package.
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
