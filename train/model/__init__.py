"""SAM 2, its checkpoints and its prediction; imports `train.loss` and below."""
