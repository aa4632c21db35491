"""The commands of `bcss-train`, one file each: they parse and call. Only `train/cli.py` imports them."""
