"""Logs of a service in files: a line for each request without what it says, and, for debugging, what is said."""

import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

_MOST_BYTES, _OLDER = 10 * 2**20, 3  # of a file, and how many older ones are kept beside it
_SHOWN = 20_000  # bytes of a body that are shown


class LogFile:
    """A log that begins anew when it has grown, and keeps a few older files.

    Args:
        path: the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._handler = RotatingFileHandler(path, maxBytes=_MOST_BYTES, backupCount=_OLDER, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk stops no service

    def write(self, text: str) -> None:
        """Write a line, or several."""
        self._handler.handle(logging.LogRecord("service", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def body_text(body: bytes, kind: str, length: int) -> str:
    """Return a body as the log shows it.

    Args:
        body: its beginning.
        kind: its media type.
        length: bytes of the whole body.
    """
    if not body:
        return "(empty)"
    if "protobuf" in kind or b"\0" in body[:1000]:
        return f"({length:,} bytes of {kind or 'an unknown type'})"
    text = body[:_SHOWN].decode("utf-8", "replace")
    return text if length <= len(text.encode()) else f"{text}... ({length:,} bytes)"


def error_text(body: bytes) -> str:
    """Return what an error says that a client is told, in either protocol's form; empty where there is none."""
    try:
        found: Any = json.loads(body.removeprefix(b"data: "))
    except ValueError:
        return body[:200].decode("utf-8", "replace")
    told = found.get("error") if isinstance(found, dict) else None
    text = told.get("message") if isinstance(told, dict) else told
    return text if isinstance(text, str) else ""
