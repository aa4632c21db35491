"""Commands of `bcss-prep`, one file each, which only `prep/cli.py` imports; imports all of `prep`."""
