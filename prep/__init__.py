"""The first stage: turn images and palettized masks into tiles, segments and prompts in a Zarr store."""
