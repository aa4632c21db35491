"""Write checkpoints for other programs that use SAM 2; may import `train.model` and what that may import."""
