"""Means, intervals and other numbers over columns of scores. May import `schemas`, and nothing from `train`."""
