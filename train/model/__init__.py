"""SAM 2, its checkpoints and its predictions. May import `train.data`, `loss`, `runtime` and `transforms`."""
