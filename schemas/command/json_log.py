"""Format log lines for programs: one JSON object per line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

FIELDS = "bcss_fields"
"""Key of `extra` for more entries of a log line, as a dictionary."""


class JsonFormatter(logging.Formatter):
    """Formats a record as `{"time", "level", "logger", "message", ...}`, in ASCII in every locale."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception adds its `traceback`."""
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
