"""Log lines for programs: one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

FIELDS = "bcss_fields"
"""Key of `extra` under which a log call gives entries of its own beside the message, as a dictionary."""


class JsonFormatter(logging.Formatter):
    """Formats a record as `{"time", "level", "logger", "message", ...}`, in ASCII whatever the locale."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback goes under `traceback`."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
