"""Derive tiles, segments and points from pixels; imports `prep.config` and `prep.source`."""
