"""Image files as arrays: images as RGB, masks as the values that they store; imports `schemas` alone."""
