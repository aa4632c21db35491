"""Write predicted objects to files; imports `train.choices`, `train.prompts` and below."""
