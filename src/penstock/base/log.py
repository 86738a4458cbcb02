"""Logging of Penstock's own processes: for people on a terminal, JSON lines otherwise.

One logger, "penstock", and nothing above it is touched: the user's logging stays the user's.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_ROOT = "penstock"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = self.formatTime(record, "%H:%M:%S")
        facts = " ".join(f"{key}={value}" for key, value in getattr(record, "facts", {}).items())
        text = f"{clock} {record.levelname.lower():7} {record.getMessage()}"
        text += f"  {facts}" if facts else ""
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(level: str = "info", form: str = "auto") -> None:
    """Send Penstock's log to stderr. Calling it again replaces what was set up."""
    handler = logging.StreamHandler(sys.stderr)
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(_Human() if human else _JsonLines())
    root = logging.getLogger(_ROOT)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def logger(name: str) -> logging.Logger:
    """A logger below "penstock"; `log.info("text", extra=facts(step=3))` adds facts."""
    return logging.getLogger(f"{_ROOT}.{name}")


def facts(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call."""
    return {"facts": values}
