"""Commands of `bcss-train`, one file each, which only `train/cli.py` imports; imports all of `train`."""
