"""Samples, their order and their batches; may import `schemas`, `train.transforms` and the settings."""
