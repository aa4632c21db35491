"""Describe the networks that the project trains, in names and numbers; imports nothing from `train`."""
