"""Read image files as arrays: RGB images, masks as stored values; imports `schemas.errors` and `schemas.limits`."""
