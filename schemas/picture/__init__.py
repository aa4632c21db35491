"""Read image files as arrays: images as RGB, masks as their stored values; imports only `schemas`."""
