"""What a run needs of its machine: device, processes, signals, log files and random states.

May import `schemas` and the settings.
"""
