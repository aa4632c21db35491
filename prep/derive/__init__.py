"""Derive tiles, segments and points from pixels; imports only `schemas`, `prep.source` and `prep.config`."""
