"""Derive tiles, segments and points from pixels; imports `schemas`, `prep.source` and `prep.config` alone."""
