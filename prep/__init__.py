"""Stage 1, offline: palettized masks to segments and prompts in a Zarr store."""
