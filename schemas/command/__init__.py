"""What both command lines share: messages, JSON log lines, stage times, settings files; may import `schemas.errors`."""
