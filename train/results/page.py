"""Write the HTML page that shows the overlay pictures of all predicted images."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from train.prompts.object_class import NO_CLASS_COLOR
from train.results.done_record import ImageSummary

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Objects</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; display: block; border-radius: 4px }} figure {{ margin: 0 0 2rem }}
figcaption {{ color: #555; overflow-wrap: anywhere }}
i {{ display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin: 0 .3em 0 .6em }}
</style></head><body><h1>Objects</h1>
{figures}
</body></html>
"""


PAGE_FILE = "index.html"
_PICTURE_SUFFIX = ".overlay.jpg"


def remove_page(out: Path, removed: Iterable[str]) -> None:
    """Remove the page if a picture on it was removed; `write_page` writes it again if others are left.

    Args:
        out: The folder of results.
        removed: Names of the removed files.
    """
    if any(name.endswith(_PICTURE_SUFFIX) for name in removed):
        (out / PAGE_FILE).unlink(missing_ok=True)


def write_page(out: Path, summaries: Iterable[ImageSummary]) -> None:
    """Write `index.html` if there are overlay pictures.

    Args:
        out: The folder of results.
        summaries: The summary of each image.
    """
    figures: list[str] = []
    for summary in summaries:
        picture = next((name for name in summary.files if name.endswith(_PICTURE_SUFFIX)), None)
        if picture:
            caption = html.escape(f"{summary.name}: {summary.objects} objects") + "".join(_legend(summary))
            source, name = html.escape(quote(picture)), html.escape(picture)
            figures.append(f'<figure><img src="{source}" alt="{name}"><figcaption>{caption}</figcaption></figure>')
    if figures:
        (out / PAGE_FILE).write_text(_PAGE.format(figures="\n".join(figures)), encoding="utf-8")


def _legend(summary: ImageSummary) -> Iterator[str]:
    """Yield the color, number and name of each class; outlines in the picture have the color of the class."""
    for name, count in summary.classes.items():
        color = summary.colors.get(name, f"#{bytes(NO_CLASS_COLOR).hex()}" if not name else "")
        mark = f'<i style="background: {color}"></i>' if color else ", "
        yield f"{mark}{count} {html.escape(name or 'without a class')}"
