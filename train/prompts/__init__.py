"""Read prompts of images, boxes and clicks that each ask for one object; imports `train.slide` and below."""
