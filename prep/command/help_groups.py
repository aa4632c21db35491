"""The groups of flags in the `--help` of `bcss-prep build`, and the examples at its end."""

from __future__ import annotations

BUILD = {
    "Source": (
        *("dataset", "images", "masks", "image_suffix", "mask_suffix", "unpaired", "class_mask", "instance_classes"),
        *("class_map", "colors", "nearest_color", "source_mpp"),
    ),
    "Sequences": ("sequences",),
    "Tiles": ("layout", "size", "stride", "edge", "mpp", "min_tissue"),
    "Objects and prompts": ("objects", "classes", "ignore", "min_area", "positive_points", "negative_points"),
    "Split": ("split_file", "patients", "split_fractions", "seed"),
    "Store": ("out", "codec", "overwrite"),
    "Processes": ("workers", "dask", "work_dir"),
}

BUILD_EXAMPLES = (
    "bcss-prep build data/BCSS --out bcss.zarr",
    "bcss-prep build rois.csv --out mine.zarr --size 512 --objects component --min-area 64",
    "bcss-prep build data/BCSS --out s3://bucket/bcss.zarr --workers 16",
)
