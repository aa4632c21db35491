"""Stored features of a frozen image encoder; imports `train.model` and below."""
