"""Record which images are finished, so that a repeated command skips them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import ConfigError, SourceError

DONE_FOLDER = ".done"


class ImageSummary(BaseModel):
    """Summary of the results of one image.

    Attributes:
        name: Stem of the image.
        objects: Number of objects.
        classes: Number of objects by class name; the empty name stands for objects without a class.
        empty: Number of prompts that gave no object.
        seconds: Seconds that the prediction took.
        pixels: Number of pixels of the grid.
        files: Names of the result files.
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
        digest: Digest of the model, the image, the prompts and the settings.
        summary: Summary of the results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    summary: ImageSummary


def check_done(out: Path, path: Path, digest: str, *, overwrite: bool) -> None:
    """Refuse to replace results of other settings without `overwrite`.

    Args:
        out: The folder of results.
        path: Path of the image.
        digest: Digest of the model, the image, the prompts and the settings.
        overwrite: Whether such results may be replaced.

    Raises:
        ConfigError: There are such results, and they may not be replaced.
    """
    record = _record(out, path)
    if record is not None and record.digest != digest and not overwrite:
        what = f"holds results of {path.name} from another model, image or setting"
        raise ConfigError(out, what, "choose another --out, or give --overwrite")


def _record(out: Path, path: Path) -> DoneRecord | None:
    where = out / DONE_FOLDER / f"{path.stem}.json"
    try:
        return DoneRecord.model_validate_json(where.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SourceError(where, "is damaged", "remove it, and the image will be predicted again") from error


def summary_of(out: Path, path: Path, digest: str | None = None) -> ImageSummary | None:
    """Return the summary of an image; None if the image is not finished, or one of its files no longer exists.

    Args:
        out: The folder of results.
        path: Path of the image.
        digest: Digest that the record must have; None accepts any.
    """
    record = _record(out, path)
    if record is None or digest not in (None, record.digest):
        return None
    return record.summary if all((out / name).is_file() for name in record.summary.files) else None


def remove_files(out: Path, path: Path) -> None:
    """Remove the files that an image's record names. The record stays, so that a killed removal can be repeated."""
    record = _record(out, path)
    for name in record.summary.files if record else ():
        (out / Path(name).name).unlink(missing_ok=True)


def write_record(out: Path, record: DoneRecord) -> None:
    """Write the record of a finished image; no reader can see a half-written file.

    Args:
        out: The folder of results.
        record: The record.
    """
    (out / DONE_FOLDER).mkdir(exist_ok=True)
    path = out / DONE_FOLDER / f"{record.summary.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(record.model_dump_json(), encoding="utf-8")
    partial.replace(path)
