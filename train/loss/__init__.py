"""SAM 2's training loss and the predictions that it scores; imports `train.data` and below."""
