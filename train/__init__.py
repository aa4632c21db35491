"""Stage 2: fine-tune SAM 2 on a store with its explicit prompts, and score models under one protocol."""
