"""Which codes are classes, which are ignored, and how they are named, where the user does not say it.

A data set whose files are named as in BCSS gets the rules of BCSS. Another one gets none of them: nothing is ignored,
0 is background, and classes are named by a class map or by their codes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prep.config import ALL_CLASSES, parse_codes
from prep.source.class_map import ClassEntry
from prep.source.discover import has_tcga_barcode
from schemas.classes import DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES

logger = logging.getLogger(__name__)

BACKGROUND = ClassEntry(code=0, name="background")


@dataclass(frozen=True)
class DatasetRules:
    """The rules of one data set.

    Attributes:
        classes: Codes that become objects, or `all`.
        ignore: Codes that count neither as object nor as background.
        class_map: Names and merges of codes.
    """

    classes: tuple[int, ...] | Literal["all"]
    ignore: tuple[int, ...]
    class_map: tuple[ClassEntry, ...]


def dataset_rules(
    masks: Path, classes: str | None, ignore: str | None, class_map: tuple[ClassEntry, ...]
) -> DatasetRules:
    """Complete what the user gave by the rules of the data set.

    Args:
        masks: The folder of masks, whose names are looked at; it may be absent.
        classes: Codes and names as `parse_codes` takes them, or `all`; None if they are not given.
        ignore: Codes and names; `none` or an empty text is an empty list; None if they are not given.
        class_map: The user's class map; empty without one.

    Raises:
        ConfigError: An entry is neither a code, a range nor a name.
    """
    stems = [path.stem for path in masks.iterdir()] if masks.is_dir() else []
    if not stems or any(has_tcga_barcode(stem) for stem in stems):
        return _rules(classes, ignore, class_map, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES)
    named = any(entry.name for entry in class_map)
    codes = {entry.code for entry in class_map}
    if BACKGROUND.code not in codes and not any(entry.name == BACKGROUND.name for entry in class_map):
        class_map = (BACKGROUND, *class_map)
    targets = [entry.code if entry.into is None else entry.into for entry in class_map]
    of_map = tuple(sorted({code for code in targets if code != BACKGROUND.code}))
    rules = _rules(classes, ignore, class_map, of_map or DEFAULT_CLASS_CODES, ())
    if not named and rules.classes != ALL_CLASSES:
        missing = [code for code in rules.classes if code not in codes | {BACKGROUND.code}]
        unnamed = tuple(ClassEntry(code=code, name=f"class_{code}") for code in missing)
        rules = DatasetRules(rules.classes, rules.ignore, (*class_map, *unnamed))
    if ignore is None or not named:
        how = "by the class map" if named else "by their codes (--class-map gives names)"
        what = "nothing is ignored (--ignore changes that), and " if ignore is None else ""
        logger.warning("the files are not named as in BCSS, so %sclasses are named %s", what, how)
    return rules


def _rules(
    classes: str | None,
    ignore: str | None,
    class_map: tuple[ClassEntry, ...],
    default_classes: tuple[int, ...],
    default_ignore: tuple[int, ...],
) -> DatasetRules:
    left_out = default_ignore
    if ignore is not None:
        left_out = () if ignore.strip().lower() == "none" else parse_codes(ignore, class_map)
    if classes is not None and classes.strip().lower() == ALL_CLASSES:
        return DatasetRules(ALL_CLASSES, left_out, class_map)
    # The codes of a range that are ignored are not meant.
    wanted = default_classes if classes is None else parse_codes(classes, class_map, without=left_out)
    return DatasetRules(wanted, left_out, class_map)
