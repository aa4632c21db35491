"""Score models and baselines by the same rules; imports `train.model`, `train.statistics` and below."""
