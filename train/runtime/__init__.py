"""A run's machine: device, processes, signals, log files, random states; imports `train.config` and below."""
