"""Score models and baselines by the same rules. May import `train.model`, `train.data` and all packages below them."""
