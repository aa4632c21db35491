"""One training run, from its start to its report. May import every part of `train` except the command line."""
