"""What a log line looks like: on a terminal, in a pipe, in a run's train.log."""

import logging
import os
import re
import sys

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # a terminal's control sequence: colours, and whatever else


class LogFormatter(logging.Formatter):
    """Writes `2026-11-28T06:08:49 INFO text`: the local time in ISO 8601, and no name, since there is one logger.

    Args:
        colours: whether the escapes that beautilog puts around a text stay there.
    """

    def __init__(self, colours: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = super().format(record)
        return line if self._colours else _ESCAPE.sub("", line)


def use_log_lines() -> None:
    """Give beautilog's handler, whose format no setting changes, our lines; colours only where they are wanted."""
    from beautilog import ColoredConsoleHandler  # tenths of a second, which a question such as `--list` does not need

    logging.raiseExceptions = False  # else each line that nobody reads (`| head`) is a traceback
    formatter = LogFormatter(wants_colours())
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ColoredConsoleHandler):
            handler.setFormatter(formatter)


def log_to_stderr() -> None:
    """Let log lines go to the standard error, where the standard output is for what a command was asked for."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.stderr)


def wants_colours() -> bool:
    """Return whether the standard output shows colours: a terminal does, unless the environment says otherwise.

    NO_COLOR (https://no-color.org) counts before FORCE_COLOR, as in Python itself; both count where they aren't empty.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
