"""Score models and baselines under one protocol. May import `train.model`, `train.data` and all packages below them."""
