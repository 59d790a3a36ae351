"""What this machine has for a model: memory, and how fast it multiplies."""

import os
import time
from pathlib import Path

import numpy as np

_SIZE, _TRIES = 1024, 3


def free_memory() -> int:
    """Return the bytes of memory that are free for a process; all that there are where the system doesn't tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measured_flops() -> float:
    """Measure the floating-point operations a second of multiplying large matrices in fp32, the best of three times."""
    one, other = (np.random.default_rng(seed).random((_SIZE, _SIZE), dtype=np.float32) for seed in (0, 1))
    best = float("inf")
    for _ in range(_TRIES):
        begin = time.perf_counter()
        np.matmul(one, other)
        best = min(best, time.perf_counter() - begin)
    return 2 * _SIZE**3 / best
