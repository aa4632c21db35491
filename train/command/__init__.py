"""The commands of `bcss-train`, one file each: they parse flags and call `train`. Only `train/cli.py` imports them."""
