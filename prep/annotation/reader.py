"""Read annotations from a file or a folder; the content tells which format they have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prep.annotation.coco import read_coco
from prep.annotation.geojson import read_geojson
from prep.annotation.labelme import read_labelme
from prep.annotation.shapes import Annotations
from prep.annotation.yolo import read_yolo
from schemas.errors import BcssError, SourceError, joined
from schemas.geojson import is_geojson
from schemas.text_file import read_text_file

MAX_JSON_BYTES = 1 << 31
"""Maximum size of a file of annotations: about two million cells from QuPath."""

_REMEDY = "give a COCO file, or a folder of GeoJSON (QuPath), Labelme JSON or YOLO text files"


def read_annotations(source: Path, sizes: Mapping[str, tuple[int, int]]) -> Annotations:
    """Read annotations.

    Args:
        source: A COCO file, a GeoJSON or Labelme file of one image, or a folder of such files or of YOLO text files.
        sizes: Width and height of each image by its stem.

    Raises:
        SourceError: Files cannot be used. All problems of a folder are in one error.
        ConfigError: A file that is given alone is unreadable, too large or not UTF-8.
    """
    if source.is_file():
        return _read_json(source)
    if not source.is_dir():
        raise SourceError(source, "does not exist", "check the path")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".json", ".geojson") and path.is_file())
    if not files:
        if any(source.glob("*.txt")):
            return read_yolo(source, sizes)
        raise SourceError(source, "holds no annotations", _REMEDY)
    found, problems = Annotations(), list[BcssError]()
    for path in files:
        try:
            _add(path, found, _read_json(path))
        except BcssError as error:
            problems.append(error)
    if problems:
        raise joined(source, problems)
    return found


def _read_json(path: Path) -> Annotations:
    text = read_text_file(path, _REMEDY, MAX_JSON_BYTES)
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(path, f"is not JSON ({error})", _REMEDY) from error
    if is_geojson(content):
        return read_geojson(path, content)
    if isinstance(content, dict):
        values = cast("dict[str, Any]", content)
        if "annotations" in values and "images" in values:
            return read_coco(path, values)
        if "shapes" in values:
            return read_labelme(path, values)
    raise SourceError(path, "is neither COCO, GeoJSON nor Labelme", _REMEDY)


def _add(path: Path, found: Annotations, more: Annotations) -> None:
    """Add the annotations of another file to those found so far."""
    twice = sorted(found.shapes.keys() & more.shapes.keys())
    if twice:
        raise SourceError(path, f"annotates {twice[0]}, as another file does", "keep one of the two")
    if any(found.codes.get(name, code) != code for name, code in more.codes.items()):
        raise SourceError(path, "gives a class a different code than another file does", "export them together")
    names = {code: name for name, code in found.codes.items()}
    for name, code in more.codes.items():
        if names.get(code, name) != name:
            what = f"gives the class {name} the code {code}, which is {names[code]} in another file"
            raise SourceError(path, what, "convert each file on its own, with one --class-map")
    found.shapes |= more.shapes
    found.sizes |= more.sizes
    found.codes |= more.codes
    found.colors = more.colors | found.colors
    for what, count in more.left_out.items():
        found.left_out[what] = found.left_out.get(what, 0) + count
