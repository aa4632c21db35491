"""Write pictures of a store's tiles, and a page that shows them in a browser without a network connection."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from prep.draw_tile import DEFAULT_LAYERS, Layer, draw_tile
from schemas.errors import StoreError
from schemas.manifest import SPLITS
from schemas.store.store import Store

THUMBNAIL_PX = 400
VIEW_FILE = ".bcss-prep-view"
"""Marks the folders that this module writes, so that no other page is overwritten."""

_IN_WORDS: dict[Layer, str] = {
    "fill": "Tint: segment.",
    "outline": "Line: outline of a segment.",
    "box": "Rectangle: box prompt.",
    "points": "Star: positive point. Cross: negative point.",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1500px; padding: 0 1rem; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} figure[hidden] {{ display: none }} img {{ width: 100%; display: block; border-radius: 4px }}
figcaption {{ font-size: 13px; color: #555; overflow-wrap: anywhere }}
form {{ display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: 1rem 0; align-items: center }}
.key span {{ display: inline-block; margin-right: 1.2em }} i {{ display: inline-block; width: .9em; height: .9em;
border-radius: 2px; margin-right: .35em; vertical-align: -1px }}
</style></head><body>
<h1>{title}</h1><p>{facts}</p><p class="key">{key}</p>
<p>{legend} Hatched: ignored. A click on a tile opens it at full size.</p>
<form><label>split <select id="split">{splits}</select></label>
<label>class <select id="class">{classes}</select></label><output id="shown"></output></form>
<main>
{figures}
</main>
<script>
const figures = [...document.querySelectorAll("figure")];
function show() {{
  const split = document.getElementById("split").value, name = document.getElementById("class").value;
  for (const figure of figures) {{
    const hasClass = figure.dataset.classes.split(" ").includes(name);
    figure.hidden = (split && figure.dataset.split !== split) || (name && !hasClass);
  }}
  const shown = figures.filter(figure => !figure.hidden).length;
  document.getElementById("shown").textContent = shown + " of " + figures.length + " tiles";
}}
document.querySelector("form").addEventListener("change", show);
show();
</script></body></html>
"""


def write_view(
    store: Store,
    out: Path,
    limit: int | None = None,
    on_tile: Callable[[int, int], None] | None = None,
    layers: Collection[Layer] = DEFAULT_LAYERS,
) -> list[Path]:
    """Write `out/tiles/*.png` at full size, `out/thumbnails/*.jpg` and `out/index.html`.

    Args:
        store: The store.
        out: The folder to write; it is absent or empty, or an earlier call wrote it.
        limit: Maximum number of tiles, spread evenly over the store; all unless given.
        on_tile: Called with the number of drawn tiles, and the number of tiles to draw.
        layers: What is drawn over a tile.

    Returns:
        The paths of the pictures.

    Raises:
        StoreError: The folder contains other files.
    """
    if out.exists() and any(out.iterdir()) and not _is_view(out):
        raise StoreError(out, "contains other files", "name a new folder with --out")
    count = min(limit or len(store), len(store))
    indices = [number * len(store) // count for number in range(count)]
    out.mkdir(parents=True, exist_ok=True)
    (out / VIEW_FILE).touch()
    for name in ("tiles", "thumbnails"):
        (out / name).mkdir(exist_ok=True)
    colors = {info.code: info.color for info in store.manifest.classes}
    paths: list[Path] = []
    figures: list[str] = []
    for number, index in enumerate(indices, start=1):
        picture = draw_tile(store.tile(index), colors, layers)
        path = out / "tiles" / f"{index:06d}.png"
        Image.fromarray(picture).save(path)
        side = min(THUMBNAIL_PX, len(picture))
        small = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        Image.fromarray(small).save(out / "thumbnails" / f"{index:06d}.jpg", quality=90)
        paths.append(path)
        figures.append(_figure(store, index))
        if on_tile:
            on_tile(number, count)
    (out / "index.html").write_text(_page(store, figures, layers), encoding="utf-8")
    return paths


def _is_view(folder: Path) -> bool:
    """Return whether an earlier call wrote a folder; earlier versions left no mark."""
    return (folder / VIEW_FILE).exists() or all((folder / name).exists() for name in ("tiles", "thumbnails"))


def _figure(store: Store, index: int) -> str:
    tile = store.tile(index)
    names = {info.code: info.name for info in store.manifest.classes}
    present = sorted(set(tile.classes.values()))
    frame_id, split = (str(store.column(f"tiles/{name}")[index]) for name in ("frame_id", "split"))
    without = "no object" if store.source(frame_id).mask is not None else "no mask"
    classes = ", ".join(sorted(names[code] for code in present)) or without
    x, y = store.column("tiles/origin_xy")[index].tolist()
    caption = f"{index}: {frame_id} at {x}, {y} ({split}) - {len(tile.classes)}: {classes}"
    codes = " ".join(map(str, present))
    return (
        f'<figure data-split="{split}" data-classes="{codes}"><a href="tiles/{index:06d}.png">'
        f'<img loading="lazy" src="thumbnails/{index:06d}.jpg" alt="tile {index}"></a>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _page(store: Store, figures: list[str], layers: Collection[Layer]) -> str:
    infos = store.manifest.classes
    key = "".join(f'<span><i style="background:rgb{info.color}"></i>{html.escape(info.name)}</span>' for info in infos)
    if store.sequences:
        key = "Each object has its own color in all frames of its sequence."
    options = "".join(f'<option value="{info.code}">{html.escape(info.name)}</option>' for info in infos)
    return _PAGE.format(
        title=html.escape(Path(store.path).name),
        facts=html.escape(f"{store.path}: {store.summary}"),
        key=key,
        legend=" ".join(text for layer, text in _IN_WORDS.items() if layer in layers),
        splits='<option value="">all</option>' + "".join(f"<option>{split}</option>" for split in SPLITS),
        classes='<option value="">all</option>' + options,
        figures="\n".join(figures),
    )
