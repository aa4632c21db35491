"""What a build derives from pixels: tiles, segments, points; may import `schemas`, `prep.source` and `prep.config`."""
