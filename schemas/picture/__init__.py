"""Read image files as colors or codes; imports `schemas.errors`, `schemas.file_names` and `schemas.limits`."""
