"""SAM 2, its checkpoints and its prediction; may import `train.data`, `loss`, `runtime` and `transforms`."""
