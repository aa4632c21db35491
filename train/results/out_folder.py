"""Check that results can be written to a folder without replacing what they were made from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from schemas.errors import ConfigError
from train.choices import ResultFormat
from train.results.done_record import DONE_FOLDER, files_of
from train.results.page import PAGE_FILE

_ENDINGS: dict[ResultFormat, tuple[str, ...]] = {
    "geojson": (".geojson",),
    "masks": (".labels.png", ".labels.ome.tif"),
    "coco": (".coco.json",),
    "csv": (".csv",),
    "overlay": (".overlay.jpg",),
}
"""How the names of results end, after the stem of the image."""


def check_out_folder(out: Path, images: Sequence[Path], prompts: Path | None) -> None:
    """Refuse a folder of results that holds the images or the prompts.

    Args:
        out: The folder of results.
        images: The images that are predicted.
        prompts: The file or folder of prompts, if there is one.

    Raises:
        ConfigError: A result could replace a file of prompts, or the next command would take results for images.
    """
    place, remedy = out.resolve(), "choose another folder"
    if any(image.parent.resolve() == place for image in images):
        what = f"is the folder of the images {out}, where the next command would take results for images"
        raise ConfigError("--out", what, remedy)
    if prompts is None:
        return
    # Results have the stem of their image, and so do most files of prompts.
    has_name = any(prompts.name.startswith(f"{image.stem}.") for image in images)
    if prompts.resolve() == place or (has_name and prompts.parent.resolve() == place):
        raise ConfigError("--out", f"is the folder of the prompts {prompts}, which results could replace", remedy)


def check_nothing_foreign(out: Path, image: Path, formats: Collection[ResultFormat]) -> None:
    """Refuse to replace files that no earlier prediction wrote.

    Args:
        out: The folder of results.
        image: The image.
        formats: The kinds of results that will be written.

    Raises:
        ConfigError: There is such a file.
    """
    names = [f"{image.stem}{ending}" for name in formats for ending in _ENDINGS[name]]
    known = files_of(out, image)
    if "overlay" in formats and not (out / DONE_FOLDER).exists():
        names.append(PAGE_FILE)
    for name in names:
        if name not in known and (out / name).exists():
            what = "is in the way, and no earlier prediction wrote it"
            raise ConfigError(out / name, what, "choose another --out, or give --overwrite to replace it")
