"""What a run asks of the machine: how many CPU threads, and that freed memory is kept."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_SMALL_STEP = 30e6  # floating-point operations of an optimizer step below which a second thread costs more than it does
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt


class Survey(FlopCounterMode):
    """Counts the operations and the floating-point operations of what runs inside it.

    Attributes:
        operators: calls of torch operators.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


@contextmanager
def cpu_threads(wanted: int, step_flops: float | None) -> Iterator[None]:
    """Set how many threads torch's CPU operators use, and set back what was.

    Threads wait for one another at the end of every operator. Where an operator takes microseconds that costs more
    than it brings, and with a busy neighbour on the machine many times more.

    Args:
        wanted: how many; 0 takes one for a model whose step is small, else leaves what is set.
        step_flops: floating-point operations of an optimizer step, forward and backward; None where nobody knows.
    """
    before = torch.get_num_threads()
    if wanted == 0 and step_flops is not None and step_flops < _SMALL_STEP:
        wanted = 1
    if wanted:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for the next step instead of handing them back to the kernel.

    Every block over 32 MB is otherwise mapped anew, page by page, at each step: gradients and activations of a large
    model on the CPU pay for it with half their time. Where the environment configures malloc, nothing is changed.
    """
    chosen = any(name.startswith("MALLOC_") or name in ("LD_PRELOAD", "GLIBC_TUNABLES") for name in os.environ)
    if sys.platform != "linux" or chosen:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
