"""Scores of models and baselines under one protocol; may import `train.model`, `train.data` and all below them."""
