"""Take everything that a report shows apart, so that two reports can be compared part by part."""

from __future__ import annotations

import hashlib
from collections import Counter
from html.parser import HTMLParser

_VOID = ("meta", "link", "img", "br", "input")
"""Elements that have no end tag."""

Part = tuple[str, str]
"""The place of a text or an attribute in the page, and its value."""


def page_parts(text: str) -> list[Part]:
    """Return all texts and attributes of a page in their order.

    A picture is its SHA-256. Plots in SVG are counted and not read, because their marks have random names.

    Args:
        text: The page as HTML.
    """
    reader = _PageReader()
    reader.feed(text)
    reader.close()
    return reader.parts


class _PageReader(HTMLParser):
    """Collects the parts of a page while it is read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Part] = []
        self._open: list[str] = []
        self._counts: Counter[str] = Counter()
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" in self._open:
            return
        self._counts[tag] += 1
        if tag == "tr":
            self._cells = 0
        elif tag in ("td", "th"):
            self._cells += 1
        if tag not in _VOID:
            self._open.append(tag)
        place = self._place(tag)
        if tag == "svg":
            self.parts.append((place, "a plot"))
            return
        for name, value in attrs:
            shown = value or ""
            if shown.startswith("data:image"):
                shown = f"SHA-256 {hashlib.sha256(shown.encode()).hexdigest()}"
            self.parts.append((f"{place}, {name}", shown))

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text and "svg" not in self._open:
            self.parts.append((self._place(self._open[-1] if self._open else "page"), text))

    def _place(self, tag: str) -> str:
        if "tr" in self._open and self._cells:
            return f"row {self._counts['tr']}, cell {self._cells}"
        return f"row {self._counts['tr']}" if tag == "tr" else f"{tag} {self._counts[tag]}"
