"""Draw synthetic tissue, and write it with names and masks like those of BCSS; imports nothing from `prep`."""
