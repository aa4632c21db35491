"""The same run on more and more patients, scored on one split; imports `train.fit` and below."""
