"""Commands of `bcss-prep` that have many flags, one file each: they parse and call. Only `prep/cli.py` imports them."""
