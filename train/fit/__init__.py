"""One training run, from its start to its report; imports `train.features`, `train.output` and below."""
