"""Processes that a run leaves behind."""

import contextlib
import os
import select
import time
from pathlib import Path


def working_in(folder: Path) -> list[int]:
    """Return the processes whose current folder this is, such as a run's workers; those that have ended are none."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder.resolve():
                found.append(int(entry.name))
    return found


def left_behind(folder: Path, patience: float = 120.0) -> list[int]:
    """Wait until no process works in a folder any more; return those that still do after so many seconds."""
    end = time.monotonic() + patience
    for process in working_in(folder):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(process)
            try:
                select.select([handle], [], [], max(0.0, end - time.monotonic()))
            finally:
                os.close(handle)
    return working_in(folder)
