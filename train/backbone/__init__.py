"""What the project knows of the networks that it trains, in names and numbers; imports nothing of `train`."""
