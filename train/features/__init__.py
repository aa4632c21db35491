"""The stored features of a frozen image encoder; may import `schemas`, `train.model` and whatever `train.model` may."""
