"""One sample and what moves its pixels and prompts together; may import `schemas` and the settings."""
