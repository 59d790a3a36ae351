"""What a run is doing while nothing else is said: lines of a thread of its own, only where something takes long."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DELAY = 4.0  # seconds of silence before a line; a person wonders after five
_RARE = 60.0  # seconds between two lines at most; before, each comes after twice the time of the one before


@contextmanager
def long_phase(what: str, ended: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Say what a block does, where it takes longer than four seconds; quick ones say nothing.

    Args:
        what: words for the block, such as `drawing the plots`.
        ended: function that tells that what is told of is over, though the block goes on.
    """
    left = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, left, ended), name="long-phase", daemon=True)
    with contextlib.suppress(RuntimeError):  # no more threads are to be had: then nothing is said
        teller.start()
    try:
        yield
    finally:
        left.set()


def _tell(what: str, left: threading.Event, ended: Callable[[], bool]) -> None:
    started = time.monotonic()  # beautilog's logger is the root; `--list` would import it for nothing
    while True:
        seconds = time.monotonic() - started
        if left.wait(min(max(DELAY, seconds), _RARE)) or ended():
            return
        logging.getLogger().info(f"{what} ... ({time.monotonic() - started:.0f} s)")
