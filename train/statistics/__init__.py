"""Means, intervals and other numbers over columns of scores; imports nothing from `train`."""
