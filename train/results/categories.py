"""Number the classes of a command for COCO files, in the same way for all of its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from train.prompts.object_class import ObjectClass

NO_CLASS = "object"
"""Name of the COCO category for objects without a class, because COCO requires a category."""


def category_ids(kinds: Iterable[ObjectClass], trained: Mapping[str, int]) -> dict[str, int]:
    """Return the category id of each class, and that of objects without a class.

    A class keeps the id of its category in the prompts. Otherwise it has the code of training, or a free number if that
    code is taken or there is none.

    Args:
        kinds: The classes that objects may have, each name once.
        trained: The code of each class of training by its name.
    """
    ids: dict[str, int] = {}
    listed = list(kinds)
    wanted = [(kind.name, kind.code) for kind in listed] + [(kind.name, trained.get(kind.name)) for kind in listed]
    for name, code in wanted:
        if code is not None and name not in ids and code not in ids.values():
            ids[name] = code
    for name in (NO_CLASS, *sorted(kind.name for kind in listed)):
        if name not in ids:
            ids[name] = max(ids.values(), default=0) + 1
    return ids
