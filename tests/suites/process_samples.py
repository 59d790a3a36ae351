"""What /proc says of a process, again and again, and how fast its memory grows."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class ProcessSamples:
    """Memory, open files and threads of a process.

    Attributes:
        process: its number; `self` for this one.
        at: of each look, how much had been done by then.
        memory: resident bytes.
        files: open files.
        threads: threads.
    """

    process: int | str = "self"
    at: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, at: int) -> None:
        """Look now."""
        place = Path("/proc") / str(self.process)
        self.at.append(at)
        self.memory.append(int((place / "statm").read_text().split()[1]) * _PAGE)
        self.files.append(len(os.listdir(place / "fd")))
        self.threads.append(len(os.listdir(place / "task")))

    def slope(self) -> tuple[float, float]:
        """Return bytes of memory a unit, and the half-width of its 95 % interval (least squares, second half)."""
        half = len(self.at) // 2
        x, y = np.array(self.at[half:], float), np.array(self.memory[half:], float)
        x = x - x.mean()
        slope = float(x @ y / (x @ x))
        rest = y - y.mean() - slope * x
        return slope, 1.96 * float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))
