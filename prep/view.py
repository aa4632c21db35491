"""Write pictures of a store's tiles, and a page that shows them in a browser without a network."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.errors import StoreError
from schemas.overlay import draw_overlay
from schemas.record import Record
from schemas.store.store import Store

SIDE_PX = 640
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1500px; padding: 0 1rem; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} img {{ width: 100%; display: block; border-radius: 4px }}
figcaption {{ font-size: 13px; color: #555; overflow-wrap: anywhere }}
.key span {{ display: inline-block; margin-right: 1.2em }} i {{ display: inline-block; width: .9em; height: .9em;
border-radius: 2px; margin-right: .35em; vertical-align: -1px }}
</style></head><body>
<h1>{title}</h1><p>{facts}</p><p class="key">{key}</p>
<p>Outline: segment. Star: positive point. Cross: negative point. Thin box: box prompt. Hatched: ignored.</p>
<main>
{figures}
</main></body></html>
"""


def write_view(
    store: Store, out: Path, limit: int | None = None, on_tile: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write `out/tiles/*.png` and `out/index.html`.

    Args:
        store: The store.
        out: The folder to write; it is absent or empty, or an earlier call wrote it.
        limit: Maximum number of tiles, spread evenly over the store; all unless given.
        on_tile: Called with the number of drawn tiles, and the number of tiles to draw.

    Returns:
        The paths of the pictures.

    Raises:
        StoreError: The folder contains other files.
    """
    if out.exists() and any(out.iterdir()) and not (out / "index.html").exists():
        raise StoreError(out, "contains other files", "name a new folder with --out")
    count = min(limit or len(store), len(store))
    indices = [number * len(store) // count for number in range(count)]
    (out / "tiles").mkdir(parents=True, exist_ok=True)
    colors = {info.code: info.color for info in store.manifest.classes}
    paths: list[Path] = []
    figures: list[str] = []
    for number, index in enumerate(indices, start=1):
        record = store[index]
        path = out / "tiles" / f"{index:06d}.png"
        Image.fromarray(_draw(store, record, colors)).save(path)
        paths.append(path)
        figures.append(_figure(store, record, path))
        if on_tile:
            on_tile(number, count)
    (out / "index.html").write_text(_page(store, figures), encoding="utf-8")
    return paths


def _draw(store: Store, record: Record, colors: dict[int, tuple[int, int, int]]) -> np.ndarray:
    boxes = store.prompts(record.index, "box")
    points = store.prompts(record.index, "multi_point", negatives=store.manifest.negative_points > 0)
    prompts = [prompt for object_id in boxes for prompt in (boxes[object_id], points[object_id])]
    doubled = np.repeat(np.arange(len(record.object_ids)), 2)
    return draw_overlay(record, prompts, colors, prompt_objects=doubled.tolist(), side_px=SIDE_PX)


def _figure(store: Store, record: Record, path: Path) -> str:
    names = {info.code: info.name for info in store.manifest.classes}
    classes = ", ".join(sorted({names[int(code)] for code in record.class_ids})) or "no object"
    x, y = record.origin_xy
    caption = f"{record.index}: {record.frame_id} at {x}, {y} ({record.split}) — {len(record.object_ids)}: {classes}"
    return (
        f'<figure><img loading="lazy" src="tiles/{path.name}" alt="tile {record.index}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _page(store: Store, figures: list[str]) -> str:
    key = "".join(
        f'<span><i style="background:rgb{info.color}"></i>{html.escape(info.name)}</span>'
        for info in store.manifest.classes
    )
    facts = html.escape(repr(store))
    return _PAGE.format(title=html.escape(Path(store.path).name), facts=facts, key=key, figures="\n".join(figures))
