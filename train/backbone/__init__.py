"""Names and numbers that describe the networks; the modules here import nothing from the rest of `train`."""
