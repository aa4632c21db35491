"""Read images and slides in parts, at any resolution; imports nothing from `train`."""
