"""Draw small panels of one width as SVG text; a page shows as many side by side as its width allows."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH_IN = 3.7
"""Width of a panel in inches, so that text of 7 points can be read on a phone."""

TEXT_PT, LINE_IN = 7.5, 0.15
"""Size of the text in points, and height of a line of text in inches."""

CHARACTERS = 58
"""Characters in a line of text above a panel."""

OTHERS = "#d0d0d0"
"""Color of the other models in a model's panel."""

_LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 0.45, 0.1, 0.42
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d00", "#444444")
_MARKERS = "osD^vP*"
_METADATA = {"Date": None, "Creator": None}


@dataclass(frozen=True)
class Style:
    """How a prompt kind is drawn in all plots. Models have panels of their own, so they need no color.

    Attributes:
        color: The color as `#rrggbb`.
        marker: The marker as matplotlib names it.
    """

    color: str
    marker: str


def styles_of(kinds: Sequence[str]) -> dict[str, Style]:
    """Give each prompt kind a style; up to seven kinds have colors of their own."""
    return {kind: Style(_COLORS[n % len(_COLORS)], _MARKERS[n % len(_MARKERS)]) for n, kind in enumerate(kinds)}


@dataclass(frozen=True)
class Panel:
    """A panel that is being drawn.

    Attributes:
        figure: The whole picture.
        axes: The axes below the title.
    """

    figure: Figure
    axes: Axes

    def svg(self) -> str:
        """Return the panel as SVG text for an HTML page, whose fonts show the characters of every language."""
        buffer = io.StringIO()
        with rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
            # The font that measures the text lacks some characters; the browser's fonts have them.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            self.figure.savefig(buffer, format="svg", metadata=_METADATA)
        text = buffer.getvalue()
        # Cut off the XML declaration at the start, which is not allowed inside an HTML page.
        return text[text.index("<svg") :]


def panel(title: str, height_in: float, notes: Sequence[tuple[str, str]] = ()) -> Panel:
    """Begin a panel.

    Args:
        title: Its title, which may take several lines.
        height_in: Height of the axes in inches.
        notes: Lines of text below the title, each with its color.
    """
    lines = [(line, "#222222", "bold") for line in textwrap.wrap(title, CHARACTERS) or [""]]
    lines += [(line, color, "normal") for text, color in notes for line in textwrap.wrap(text, CHARACTERS)]
    top_in = len(lines) * LINE_IN + 0.1
    total_in = top_in + height_in + _BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, total_in))
    FigureCanvasSVG(figure)
    axes = figure.add_axes(
        (
            _LEFT_IN / WIDTH_IN,
            _BOTTOM_IN / total_in,
            1 - (_LEFT_IN + _RIGHT_IN) / WIDTH_IN,
            height_in / total_in,
        )
    )
    axes.tick_params(labelsize=TEXT_PT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for number, (line, color, weight) in enumerate(lines):
        style: dict[str, Any] = {"fontsize": TEXT_PT, "color": color, "fontweight": weight}
        y = 1 - (number * LINE_IN + 0.03) / total_in
        figure.text(_RIGHT_IN / WIDTH_IN, y, plain(line), verticalalignment="top", **style)
    return Panel(figure, axes)


def name_axes(axes: Axes, across: str, up: str = "") -> None:
    """Name the axes in the text size of panels."""
    axes.set_xlabel(across, fontsize=TEXT_PT)
    axes.set_ylabel(up, fontsize=TEXT_PT, labelpad=2)


def plain(text: str) -> str:
    """Escape dollar signs, between which matplotlib would typeset a formula."""
    return text.replace("$", r"\$")
