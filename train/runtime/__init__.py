"""The machine of a run: device, processes, signals, log files, random states; may import `schemas` and the settings."""
