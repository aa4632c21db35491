"""The same run on more and more patients, scored on one split. May import all of `train` except the command line."""
