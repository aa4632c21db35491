"""The sample and the transforms that move its pixels and prompts together; may import `schemas` and the settings."""
