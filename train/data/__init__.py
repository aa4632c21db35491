"""Make samples, order them and collate them to batches; may import `schemas`, `train.transforms` and the settings."""
