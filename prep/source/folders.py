"""Find the files of a data set in its folders, and pair images with masks.

Three layouts are supported: `images/` beside `masks/`, with or without a folder for each patient in them; a folder for
each patient with `images/` and `masks/` in it; and images beside masks whose names end in a suffix.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from schemas.errors import BcssError, SourceError, joined
from schemas.file_names import CLASS_MAP_FILE, INSTANCES_FILE, is_utf8

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".tif", ".tiff")

Unpaired = Literal["error", "skip"]
"""What to do with an image without a mask, or a mask without an image."""

Key = tuple[str, str]
"""The folder of a file, relative to its root, with `/`, and its stem without suffix."""


@dataclass(frozen=True)
class Folders:
    """Where the files of a data set lie, and how their names end.

    Attributes:
        images: Folder of images.
        masks: Folder of masks.
        class_masks: Folder of the masks of classes that accompany masks of instances; empty if there are none.
        image_suffix: What the stem of each image ends in, such as `_0000`; it is not part of the ROI's name.
        mask_suffix: What the stem of each mask ends in, such as `_mask`.
        unpaired: What to do with files without a partner; None for the default, which is an error, except that a frame
            of a sequence may lack a mask.
        sequences: Whether each folder of images is a sequence.
    """

    images: str = "images"
    masks: str = "masks"
    class_masks: str = ""
    image_suffix: str = ""
    mask_suffix: str = ""
    unpaired: Unpaired | None = None
    sequences: bool = False

    @property
    def may_lack_mask(self) -> bool:
        """Whether an image without a mask is a frame without labels."""
        return self.sequences and self.unpaired is None


DEFAULT_FOLDERS = Folders()


@dataclass(frozen=True)
class Pair:
    """An image with its mask.

    Attributes:
        stem: The stem that both files share without their suffixes.
        folder: The subfolder of both, relative to the folder of images or masks; empty if there is none.
        patient: Name of the patient's folder; empty if patients have none.
        image: Path of the image.
        mask: Path of the mask; None for a frame without labels.
        class_mask: Path of the mask of classes, if the data set has them.
    """

    stem: str
    folder: str
    patient: str
    image: Path
    mask: Path | None
    class_mask: Path | None = None


@dataclass(frozen=True)
class _Root:
    """Folders whose files belong together: the folders of the whole data set, or of one patient."""

    images: Path
    masks: Path
    class_masks: Path | None
    patient: str

    @property
    def is_shared(self) -> bool:
        """Whether images and masks lie in the same folder, so that only suffixes tell them apart."""
        return self.images.resolve() == self.masks.resolve()


@dataclass
class _Files:
    """Files of one kind by key, and the problems with them."""

    paths: dict[Key, Path] = field(default_factory=dict[Key, Path])
    skipped: list[str] = field(default_factory=list[str])
    problems: list[BcssError] = field(default_factory=list[BcssError])

    def add(self, path: Path, key: Key, root: Path) -> None:
        if not is_utf8(path.relative_to(root.parent).as_posix()):
            self.problems.append(
                SourceError(path, "has a name that is not UTF-8, but names in the store are", "rename it")
            )
        elif key in self.paths:
            self.problems.append(
                SourceError(path, f"has the same stem as {self.paths[key].name}", "rename one of the two")
            )
        else:
            self.paths[key] = path


def find_pairs(source_dir: Path, folders: Folders) -> list[Pair]:
    """Pair images with masks by folder and stem.

    Args:
        source_dir: The data set's folder.
        folders: Where its files lie.

    Raises:
        SourceError: A folder is absent, empty or outside the data set's folder, a file has no partner, or two files of
            one folder share a stem. One error lists all problems.
    """
    if not source_dir.is_dir():
        remedy = (
            f"name the folder that holds {folders.images}/ and {folders.masks}/; `bcss-prep sample` makes one to try"
        )
        raise SourceError(source_dir, "is not a folder", remedy)
    for name in (folders.images, folders.masks, folders.class_masks):
        # The manifest names files by their path in the source folder.
        if not (source_dir / name).is_relative_to(source_dir):
            raise SourceError(
                source_dir / name, f"is not in {source_dir}", "name folders in it with --images and --masks"
            )
    pairs: list[Pair] = []
    problems: list[BcssError] = []
    unpaired: list[BcssError] = []
    for root in _roots(source_dir, folders):
        images, masks, class_masks = _read(root, folders)
        problems += [*images.problems, *masks.problems, *class_masks.problems]
        for key in sorted(images.paths):
            mask = masks.paths.get(key)
            if mask is None and not folders.may_lack_mask:
                continue
            patient = root.patient or key[0].partition("/")[0]
            folder = "/".join(filter(None, (root.patient, key[0])))
            class_mask = class_masks.paths.get(key)
            if mask is None and class_mask is not None:
                problems.append(SourceError(class_mask, "has no mask of instances", "add it, or move this file away"))
            pairs.append(Pair(key[1], folder, patient, images.paths[key], mask, class_mask))
            if root.class_masks is not None and mask is not None and class_mask is None:
                problems.append(SourceError(mask, f"has no mask of classes in {root.class_masks}", "add it"))
        unpaired += _without_partner(root, folders, images.paths, masks.paths)
    if folders.unpaired != "skip" or not pairs:
        problems += unpaired
    elif unpaired:
        logger.warning("files without a partner are left out: %d, such as %s", len(unpaired), unpaired[0].args[0])
    if problems:
        raise joined(source_dir, problems)
    if not pairs:
        remedy = f"put them in {folders.images}/ and {folders.masks}/, or name other folders"
        raise SourceError(source_dir, "contains no image with a mask", remedy)
    return pairs


def _roots(source_dir: Path, folders: Folders) -> list[_Root]:
    """Return the folders to search; the module's docstring describes the layouts."""
    if not any((source_dir / name).is_dir() for name in (folders.images, folders.masks)):
        patients = [folder for folder, names in _walk(source_dir) if {folders.images, folders.masks} & set(names)]
        if patients:
            return [_root(folder, folders, folder.relative_to(source_dir).as_posix()) for folder in patients]
        if folders.image_suffix or folders.mask_suffix:
            class_masks = source_dir / folders.class_masks if folders.class_masks else None
            return [_Root(source_dir, source_dir, class_masks, "")]
    return [_root(source_dir, folders, "")]


def _root(folder: Path, folders: Folders, patient: str) -> _Root:
    class_masks = folder / folders.class_masks if folders.class_masks else None
    return _Root(folder / folders.images, folder / folders.masks, class_masks, patient)


def _read(root: _Root, folders: Folders) -> tuple[_Files, _Files, _Files]:
    """Return the images, masks and masks of classes of one root."""
    images, masks, class_masks = _Files(), _Files(), _Files()
    image_suffix, mask_suffix = folders.image_suffix, folders.mask_suffix
    if root.is_shared:
        if not (image_suffix or mask_suffix):
            what = "holds images and masks together, and nothing tells them apart"
            raise SourceError(root.images, what, "give --mask-suffix, such as _mask")
        for path, folder in _files(root.images):
            is_mask = path.stem.endswith(mask_suffix) if mask_suffix else not path.stem.endswith(image_suffix)
            suffix = mask_suffix if is_mask else image_suffix
            endings = MASK_SUFFIXES if is_mask else IMAGE_SUFFIXES
            _add_or_skip(masks if is_mask else images, path, folder, suffix, endings, root.images)
        _say_skipped(root.images, [*images.skipped, *masks.skipped], IMAGE_SUFFIXES, "")
    else:
        for files, place, suffix, endings in (
            (images, root.images, image_suffix, IMAGE_SUFFIXES),
            (masks, root.masks, mask_suffix, MASK_SUFFIXES),
        ):
            _check_folder(place, root, folders)
            for path, folder in _files(place):
                _add_or_skip(files, path, folder, suffix, endings, place)
            _say_skipped(place, files.skipped, endings, suffix)
            if not files.paths and not files.problems and not root.patient:
                ending = f" that ends in {suffix}" if suffix else ""
                raise SourceError(place, f"contains no {', '.join(endings)} file{ending}", "put the ROIs there")
    if root.class_masks is not None:
        for path, folder in _files(root.class_masks):
            suffix = mask_suffix if mask_suffix and path.stem.endswith(mask_suffix) else ""
            _add_or_skip(class_masks, path, folder, suffix, MASK_SUFFIXES, root.class_masks)
        _say_skipped(root.class_masks, class_masks.skipped, MASK_SUFFIXES, "")
    return images, masks, class_masks


def _check_folder(place: Path, root: _Root, folders: Folders) -> None:
    """Refuse a missing folder, except in a patient's folder: there, files are reported as lacking a partner."""
    if not place.is_dir() and not root.patient:
        other = ", or give --mask-suffix for masks beside images" if not folders.mask_suffix else ""
        raise SourceError(place, "is not a folder", f"name the folders with --images and --masks{other}")


def _add_or_skip(files: _Files, path: Path, folder: str, suffix: str, endings: tuple[str, ...], root: Path) -> None:
    """Add a file, or count it as skipped if it is of another kind."""
    if path.suffix.lower() not in endings or not path.stem.endswith(suffix):
        files.skipped.append(path.name)
    else:
        # `a.ome.tif` is the image a, unless the user names that ending.
        files.add(path, (folder, path.stem.removesuffix(suffix or ".ome")), root)


def _without_partner(
    root: _Root, folders: Folders, images: dict[Key, Path], masks: dict[Key, Path]
) -> Iterator[BcssError]:
    for key in sorted(images.keys() ^ masks.keys()):
        place = "/".join(filter(None, key))
        if key in images:
            if folders.may_lack_mask:
                continue
            wanted = root.masks / f"{place}{folders.mask_suffix}.png"
            remedy = "add the mask, or leave out all such files with --unpaired skip"
            longer = sorted(
                stem[len(key[1]) :] for folder, stem in masks if folder == key[0] and stem.startswith(key[1])
            )
            if longer and not folders.mask_suffix:
                remedy = f"add the mask, or give --mask-suffix {longer[0]} if masks end in it"
            yield SourceError(images[key], f"has no mask {wanted}", remedy)
        else:
            wanted = root.images / f"{place}{folders.image_suffix}.png"
            remedy = "add the image, or leave out all such files with --unpaired skip"
            yield SourceError(masks[key], f"has no image {wanted}", remedy)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder and the names in it, in a fixed order; links are followed, and hidden folders are skipped."""
    seen: set[Path] = set()
    for place, names, _ in os.walk(root, onerror=_raise_unlisted, followlinks=True):
        folder = Path(place)
        if folder.resolve() in seen:
            names.clear()
            continue
        seen.add(folder.resolve())
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder, names


def _raise_unlisted(error: OSError) -> None:
    # Without this, `os.walk` leaves out a folder that it cannot list.
    remedy = "check its permissions and the disk, or move it away"
    raise SourceError(error.filename, f"cannot be listed ({error.strerror or error})", remedy) from error


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that is not hidden, with its folder relative to the root."""
    for folder, _ in _walk(root):
        below = folder.relative_to(root).as_posix()
        for path in sorted(folder.iterdir()):
            # Skip the tables that `bcss-prep masks` writes beside masks.
            is_hidden = path.name.startswith(".") or path.name in (CLASS_MAP_FILE, INSTANCES_FILE)
            if not is_hidden and not path.is_dir():
                yield path, "" if below == "." else below


def _say_skipped(folder: Path, skipped: list[str], endings: tuple[str, ...], suffix: str) -> None:
    if skipped:
        kind = ", ".join(endings) + (f" files that end in {suffix}" if suffix else " files")
        logger.warning("%s: %d entries are not %s and are left out, such as %s", folder, len(skipped), kind, skipped[0])
