"""What a run needs from its machine: device, processes, signals, log files and random states."""
