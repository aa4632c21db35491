"""Record which images are finished, so that a repeated command skips them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
        pixels: Number of pixels of the grid that the model was given: the whole image or region with `--automatic`, or
            the windows of the prompts.
        files: Names of the result files.
        colors: Color of each class in pictures, as #rrggbb; records of earlier versions have none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    objects: int
    classes: dict[str, int]
    empty: int
    seconds: float
    pixels: int
    files: tuple[str, ...]
    colors: dict[str, str] = Field(default_factory=dict)


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
    record = _record(out, path.stem)
    if record is not None and record.digest != digest and not overwrite:
        what = f"holds results of {path.name} from another model, image or setting"
        raise ConfigError(out, what, "choose another --out, or give --overwrite")


def _record(out: Path, stem: str) -> DoneRecord | None:
    where = out / DONE_FOLDER / f"{stem}.json"
    try:
        return DoneRecord.model_validate_json(where.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise SourceError(where, "is damaged", "remove it, and the image will be predicted again") from error


def summary_of(out: Path, path: Path, digest: str) -> ImageSummary | None:
    """Return the summary of an image; None if it is not finished with these settings, or one of its files is gone.

    Args:
        out: The folder of results.
        path: Path of the image.
        digest: Digest of the model, the image, the prompts and the settings.
    """
    record = _record(out, path.stem)
    return record.summary if record is not None and record.digest == digest and _is_whole(out, record) else None


def summaries(out: Path) -> list[ImageSummary]:
    """Return the summaries of all images whose results the folder holds, also those of earlier commands, by name."""
    stems = sorted(file.name.removesuffix(".json") for file in (out / DONE_FOLDER).glob("*.json"))
    records = [record for stem in stems if (record := _record(out, stem)) is not None]
    return [record.summary for record in records if _is_whole(out, record)]


def _is_whole(out: Path, record: DoneRecord) -> bool:
    return all((out / name).is_file() for name in record.summary.files)


def files_of(out: Path, path: Path) -> tuple[str, ...]:
    """Return the names of the files that an image's record names; none if it has no record."""
    record = _record(out, path.stem)
    return tuple(Path(name).name for name in record.summary.files) if record else ()


def remove_files(out: Path, path: Path) -> tuple[str, ...]:
    """Remove the files that an image's record names, and return their names.

    The record stays, so that a killed removal can be repeated.
    """
    names = files_of(out, path)
    for name in names:
        (out / name).unlink(missing_ok=True)
    return names


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
