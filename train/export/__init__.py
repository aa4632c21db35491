"""Write checkpoints for other programs that use SAM 2; imports `train.model` and below."""
