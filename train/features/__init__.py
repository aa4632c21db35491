"""Stored features of a frozen image encoder; may import `schemas`, `train.model` and what that may import."""
