"""The groups of flags in `--help`, and the examples at its end."""

from __future__ import annotations

from collections.abc import Mapping

MODEL, DATA, PROMPTS, SCORES = "Model", "Data", "Prompts", "Scores"
OPTIMIZATION, CHECKPOINTS, RESULTS, DEVICE = "Optimization", "Checkpoints and reports", "Results", "Device and speed"
WITHOUT_PROMPTS, FRAMES, PATIENTS = "Without prompts", "Sequences", "Number of patients"

Groups = Mapping[str, tuple[str, ...]]

EVALUATE: Groups = {
    MODEL: ("checkpoint", "baseline", "model", "image_size", "zero_shot"),
    DATA: ("split", "allow_seen"),
    PROMPTS: ("prompt", "negatives", "corrections", "jitter"),
    FRAMES: ("propagate",),
    SCORES: ("tta", "threshold", "tolerance_um", "primary", "against"),
    RESULTS: ("out", "save_masks", "stitch", "overwrite"),
    DEVICE: ("device", "workers"),
}

EVALUATE_EXAMPLES = (
    "bcss-train evaluate bcss.zarr --checkpoint run/checkpoints/best.pt --out report",
    "bcss-train evaluate bcss.zarr --checkpoint old=a.pt --checkpoint new=b.pt --out both",
    "bcss-train evaluate bcss.zarr --baseline box --out floor",
)

PREDICT: Groups = {
    MODEL: ("model", "image_size", "tta", "threshold"),
    DATA: ("region", "mpp", "source_mpp", "overlap"),
    PROMPTS: ("prompts",),
    FRAMES: ("first_mask",),
    WITHOUT_PROMPTS: ("automatic", "grid", "iou_threshold", "stability_threshold", "nms", "batch_size"),
    RESULTS: ("out", "formats", "min_area", "overwrite"),
    DEVICE: ("device", "workers"),
}

PREDICT_EXAMPLES = (
    "bcss-train predict run/checkpoints/best.pt slide.svs --automatic --out found",
    "bcss-train predict run/checkpoints/best.pt images --prompts boxes.geojson --out found",
)

FIT: Groups = {
    MODEL: ("model", "init", "image_size", "freeze", "lora", "recipe"),
    DATA: ("batch_size", "max_objects", "balance", "augment"),
    PROMPTS: ("prompt", "negatives", "corrections", "mask_prompt_share", "box_jitter"),
    FRAMES: ("frames", "frame_stride", "reverse", "corrected_frames"),
    OPTIMIZATION: (
        *("epochs", "max_steps", "accumulate", "lr", "vision_lr", "warmup_steps", "layer_decay", "ema", "patience"),
        *("seed", "config"),
    ),
    CHECKPOINTS: ("out", "save_every_steps", "resume", "keep_previous", "report"),
    DEVICE: ("device", "workers", "compile", "checkpoint_activations", "cache_features", "plan"),
    PATIENTS: ("curve",),
}

FIT_EXAMPLES = (
    "bcss-train fit bcss.zarr --model base_plus --init sam2.1_hiera_base_plus.pt --out run",
    "bcss-train fit bcss.zarr --init nano --device cpu --out small_run",
    "bcss-train fit bcss.zarr --out run --resume",
    "bcss-train fit bcss.zarr --init sam2.1_hiera_tiny.pt --recipe medsam2 --plan",
)
