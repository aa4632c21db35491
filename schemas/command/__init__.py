"""What both command lines share: messages, log lines, stage times, settings files; imports `schemas.errors`."""
