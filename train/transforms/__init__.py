"""The sample and the transforms that move its pixels and prompts together; imports `train.settings`."""
