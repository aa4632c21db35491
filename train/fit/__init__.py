"""One training run, from its start to its report; may import every other part of `train` but the command line."""
