"""How an error of an agent is told: the user's line, and what went wrong. It needs no torch."""

import traceback

from train.error_location import place

_MOST = 300


def told_error(error: BaseException) -> str:
    """Return an error with its line in the user's code, such as `examples/hello.py:12 in hello: KeyError: 'x'`."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/train/agents/" not in frame.filename]
    text = " ".join(str(error).split())
    text = text if len(text) <= _MOST else f"{text[:_MOST]}..."
    return f"{place(frames)}{type(error).__name__}{f': {text}' if text else ''}"
