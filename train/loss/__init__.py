"""SAM 2's training loss and the predictions that it takes; may import `schemas`, `train.data` and the settings."""
