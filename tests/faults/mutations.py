"""Make damaged and hostile inputs from a seed: change bytes of a valid file, or values of a JSON document."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

NASTY_NUMBERS = (-1, 0, 1, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 10**12, 2**63 - 1, 2**63, 10**30)
NASTY_TEXTS = (
    "",
    ".",
    "..",
    "../../evil",
    "/tmp/evil",
    "a/b",
    "a\\b",
    "c:evil",
    "\x00",
    "\n",
    "\ud800",
    "x" * 5000,
    "<b>",
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NASTY_NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from(NASTY_TEXTS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Change a valid file in one to four places: bits, bytes, numbers, cuts, repeats."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(7):
            case 0 if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
            case 1 if place < len(changed):
                changed[place] = draw.randrange(256)
            case 2:
                width = draw.choice((1, 2, 4, 8))
                number = draw.choice((0, 1, (1 << (8 * width)) - 1, 1 << (8 * width - 1), draw.getrandbits(8 * width)))
                changed[place : place + width] = number.to_bytes(width, draw.choice(("big", "little")))
            case 3:
                del changed[place:]
            case 4:
                del changed[place : place + draw.randrange(1, 64)]
            case 5:
                changed[place:place] = draw.randbytes(draw.randrange(1, 32))
            case _:
                other = draw.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + draw.randrange(1, 64)]
    return bytes(changed)


@st.composite
def documents(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Draw a JSON document in which one to three values, at any depth, are replaced, removed or added to."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = changed
        depth = draw(st.integers(0, 5))
        for _ in range(depth):
            inner = list(place.values()) if isinstance(place, dict) else place
            nested = [value for value in inner if isinstance(value, dict | list) and value]
            if not nested:
                break
            place = draw(st.sampled_from(range(len(nested))).map(nested.__getitem__))
        if not place:
            continue
        if isinstance(place, list):
            key: Any = draw(st.integers(0, len(place) - 1))
        else:
            key = draw(st.sampled_from(sorted(place)) | st.text(max_size=6))
        if draw(st.integers(0, 5)) == 0:
            place.pop(key) if isinstance(place, list) else place.pop(key, None)
        else:
            place[key] = draw(values)
    return changed
