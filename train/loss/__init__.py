"""SAM 2's training loss and the predictions that it scores; may import `schemas`, `train.data` and the settings."""
