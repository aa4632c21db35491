"""Follow objects through the frames of a sequence, and score their masks; may import `train.score` and all below."""
