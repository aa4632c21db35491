"""The record of an image that is done, by which a repeated command leaves it as it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import ConfigError, SourceError

DONE_FOLDER = ".done"


class ImageSummary(BaseModel):
    """What was found in one image.

    Attributes:
        name: Stem of the image.
        objects: Number of objects.
        classes: Number of objects of each class; those without one under an empty name.
        empty: Number of prompts that gave no object.
        seconds: Seconds that it took.
        pixels: Pixels of the grid.
        files: Names of the files.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    objects: int
    classes: dict[str, int]
    empty: int
    seconds: float
    pixels: int
    files: tuple[str, ...]


class DoneRecord(BaseModel):
    """The record of a finished image.

    Attributes:
        digest: Identifies model, image, prompts and settings.
        summary: What was found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    summary: ImageSummary


def check_done(out: Path, path: Path, digest: str, *, overwrite: bool) -> None:
    """Refuse to replace results of other settings without `overwrite`.

    Args:
        out: The folder of results.
        path: The image.
        digest: Identifies model, image, prompts and settings.
        overwrite: Whether they may be replaced.

    Raises:
        ConfigError: There are such results.
    """
    record = _record(out, path)
    if record is not None and record.digest != digest and not overwrite:
        what = f"holds results of {path.name} by another model, image or setting"
        raise ConfigError(out, what, "choose another --out, or give --overwrite")


def _record(out: Path, path: Path) -> DoneRecord | None:
    where = out / DONE_FOLDER / f"{path.stem}.json"
    try:
        return DoneRecord.model_validate_json(where.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SourceError(where, "is damaged", "remove it; the image is then predicted again") from error


def summary_of(out: Path, path: Path, digest: str | None = None) -> ImageSummary | None:
    """Return what was found in an image; None if it is not done, or one of its files is gone.

    Args:
        out: The folder of results.
        path: The image.
        digest: Identifies model, image, prompts and settings; any unless given.
    """
    record = _record(out, path)
    if record is None or digest not in (None, record.digest):
        return None
    return record.summary if all((out / name).is_file() for name in record.summary.files) else None


def write_record(out: Path, record: DoneRecord) -> None:
    """Write the record of a finished image; it appears whole.

    Args:
        out: The folder of results.
        record: The record.
    """
    (out / DONE_FOLDER).mkdir(exist_ok=True)
    path = out / DONE_FOLDER / f"{record.summary.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(record.model_dump_json(), encoding="utf-8")
    partial.replace(path)
