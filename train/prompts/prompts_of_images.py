"""Read the prompts of several images from a file, or from a folder of files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, SourceError
from schemas.file_names import is_utf8
from schemas.geojson import is_geojson
from schemas.text_file import read_text_file
from train.prompts.coco import coco_prompts
from train.prompts.geojson import geojson_prompts
from train.prompts.object_prompt import FORMATS_REMEDY, ObjectPrompt, PromptsByImage
from train.prompts.table import table_prompts

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 1 << 30


@dataclass(frozen=True)
class PromptsOfImages:
    """The prompts of several images.

    Attributes:
        path: Path of the prompts, for messages.
        asked: The prompts by the name of their image.
        is_qupath: Whether they are in GeoJSON, whose coordinates count from where QuPath's do.
        sizes: Width and height of the annotated images by name, where the file states them.
    """

    path: Path
    asked: PromptsByImage
    is_qupath: bool = False
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    @classmethod
    def read(cls, path: Path) -> PromptsOfImages:
        """Read prompts.

        Args:
            path: A GeoJSON, COCO or CSV file, or a folder of GeoJSON files, each named like its image.

        Raises:
            SourceError: A file cannot be used, or holds no prompt.
            ConfigError: A file cannot be read.
        """
        is_qupath, sizes = False, dict[str, tuple[int, int]]()
        if path.is_dir():
            asked, is_qupath = _of_folder(path), True
        elif path.suffix.lower() in (".csv", ".tsv"):
            asked = table_prompts(path)
        else:
            content = _json(path)
            is_qupath = not (isinstance(content, dict) and "images" in content and "annotations" in content)
            if is_qupath and content and not is_geojson(content):
                raise SourceError(path, "is neither GeoJSON nor COCO", FORMATS_REMEDY)
            if is_qupath:
                asked: PromptsByImage = {"": geojson_prompts(path, content)}
            else:
                asked, sizes = coco_prompts(path, content)
        if not any(asked.values()):
            raise SourceError(path, "holds no prompt", FORMATS_REMEDY)
        for item in (item for items in asked.values() for item in items):
            if not is_utf8(item.name) or (item.kind and not is_utf8(item.kind.name)):
                raise SourceError(path, f"has the object {item.name!r}, whose name or class is not text", "rename it")
        return cls(path, asked, is_qupath, sizes)

    def by_image(self, images: Sequence[Path]) -> dict[Path, list[ObjectPrompt]]:
        """Return the prompts of each image.

        Raises:
            ConfigError: No image has a prompt.
        """
        found = {image: self.of(image, alone=len(images) == 1) for image in images}
        if not any(found.values()):
            named = ", ".join(filter(None, list(self.asked)[:3]))
            what = f"has no prompt for {images[0].name}" + (f"; it names {named}" if named else "")
            by_name = "give prompts the names of their images"
            raise ConfigError(
                self.path, what, by_name if named else "give a folder with one GeoJSON file for each image"
            )
        return found

    def check_size(self, image: Path, size_xy: tuple[int, int]) -> None:
        """Check that an image has the size of the one that was annotated, if the file states it.

        Args:
            image: Path of the image.
            size_xy: Its width and height in pixels.

        Raises:
            SourceError: The sizes differ.
        """
        for name in _names(image, alone=False):
            told = self.sizes.get(name, size_xy)
            if told != size_xy:
                what = f"says that {image.name} is {told[0]} x {told[1]} px, but it is {size_xy[0]} x {size_xy[1]} px"
                raise SourceError(self.path, what, "give the images that were annotated")

    def warn_of_unmatched(self, images: Sequence[Path]) -> None:
        """Warn of images that have no prompt, and of prompts whose image is not among the given ones."""
        given = {image: _names(image, alone=len(images) == 1) for image in images}
        without = [image.name for image, names in given.items() if not any(self.asked.get(name) for name in names)]
        if without:
            logger.warning("%s: %d images have no prompt, such as %s", self.path, len(without), without[0])
        unused = sorted(self.asked.keys() - {name for names in given.values() for name in names} - {""})
        if unused:
            logger.warning("%s: %d images with prompts are not given, such as %s", self.path, len(unused), unused[0])

    def of(self, image: Path, *, alone: bool) -> list[ObjectPrompt]:
        """Return the prompts of an image.

        Args:
            image: Path of the image.
            alone: Whether it is the only image. Then prompts need not name it, but must not name another.
        """
        return [item for name in _names(image, alone=alone) for item in self.asked.get(name, [])]


def _of_folder(path: Path) -> PromptsByImage:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".geojson", ".json"))
    found: PromptsByImage = {}
    for file in files:
        if file.stem in found:
            raise SourceError(file, "has the same stem as another file of prompts", "leave one of them")
        found[file.stem] = geojson_prompts(file, _json(file))
    return found


def _names(image: Path, *, alone: bool) -> list[str]:
    """Return the names that prompts may give an image; a table may name it with its suffix in only some rows.

    QuPath leaves out the whole ending `.ome.tif` when it names an export.
    """
    return list(dict.fromkeys([image.name, image.stem, image.stem.removesuffix(".ome"), *([""] if alone else [])]))


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text_file(path, FORMATS_REMEDY, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(path, f"is not JSON ({error})", FORMATS_REMEDY) from error
