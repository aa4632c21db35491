"""Follow objects through the frames of a sequence, and score their masks; imports `train.output` and below."""
