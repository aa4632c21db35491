"""Read images and slides in parts, at any resolution; imports `schemas`, and nothing from `train`."""
