"""What a run asks of the machine: a device, how many CPU threads, and that freed memory is kept."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from config import ConfigError
from constants.nearest import nearest

SMALL_STEP_FLOPS = 30e6  # floating-point operations of a step below which a second thread costs more than it brings
_SMALL_OPERATOR_FLOPS = 1e6  # the same of an operator: a recurrent network's step is thousands of small ones
_OPERATORS_OF_A_TIME_STEP = 2  # of a fused recurrent layer: a matrix product, and what follows
_DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
_CALLED = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "apple": "mps", "metal": "mps", "m1": "mps"}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt


def usable_device(name: str, index: int | None = None) -> torch.device:
    """Return a device by the config's name for it.

    Args:
        name: name of the device as in the config: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        index: number of the GPU, where the name says none: that of one of several processes.

    Raises:
        ConfigError: this machine doesn't have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and index is not None:
        name = f"cuda:{index}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith(("Expected one of", "Invalid device string")):  # torch lists two dozen names
            raise ConfigError([_no_such_device(name)]) from error
        raise ConfigError([f"device = '{name}' can't be used here: {reason}. `auto` takes what there is."]) from error
    return device


def _no_such_device(name: str) -> str:
    kind, colon, number = name.lower().partition(":")
    meant = _CALLED.get(kind) or nearest(kind, _DEVICES) or "auto"
    meant += colon + number if meant == "cuda" and number.isdecimal() else ""
    return f"device = '{name}' is no device; did you mean '{meant}'? There are {', '.join(_DEVICES)}."


class _OperatorCount(TorchDispatchMode):
    """Counts without torch's FlopCounterMode, whose hooks on modules break a gradient taken inside a forward pass."""

    count, flops = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        kind = getattr(func, "_overloadpacket", None)
        formula = flop_registry.get(kind)
        if kind is torch.ops.aten.mkldnn_rnn_layer:
            self.flops += self._count_recurrent_layer(*args)
            return result
        if formula is not None:
            with suppress(Exception):  # an estimate; a layout that the formula doesn't know must not end a run
                self.flops += formula(*args, **kwargs, out_val=result)
        return result

    def _count_recurrent_layer(self, given: torch.Tensor, *weights: Any, **_: Any) -> float:
        """Count a fused recurrent layer, which is one call, as the time steps that it goes through one by one."""
        steps, samples = given.shape[:2]
        self.count += _OPERATORS_OF_A_TIME_STEP * steps
        return 2 * steps * samples * sum(weight.numel() for weight in weights[:2])


class FlopCounter:
    """Counts the operations and the floating-point operations of what runs inside it."""

    def __init__(self) -> None:
        self._count = _OperatorCount()
        self._stack = ExitStack()

    def __enter__(self) -> "FlopCounter":
        # Attention in one opaque kernel, as evaluation has it, would not be counted.
        self._stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self._stack.enter_context(self._count)
        return self

    @property
    def operators(self) -> int:
        """Number of calls of torch operators."""
        return self._count.count

    @property
    def flops(self) -> float:
        """Floating-point operations of the products (matrices, convolutions, attention)."""
        return self._count.flops

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def of(self, model: torch.nn.Module, samples: int) -> tuple[int, float]:
        """Return what was counted.

        Args:
            model: model whose forward pass was counted.
            samples: number of samples in the batch of the forward pass.

        Returns:
            The number of calls of torch operators, and floating-point operations a sample, at least two for each
                weight.
        """
        weights = sum(parameter.numel() for parameter in model.parameters())
        return self.operators, max(self.flops / max(samples, 1), 2.0 * weights)


def release_memory() -> None:
    """Give back what a finished trainer held, which is tied into cycles; the compiled forms hide these from Python."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use: on CUDA by tensors, elsewhere by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # there is none on Windows, where this alone fails

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def needs_one_thread(step_flops: float | None, operator_flops: float | None) -> bool:
    """Return whether a second CPU thread would cost a step more than it brings.

    Threads wait for one another at the end of every operator. Where an operator takes microseconds that costs more
    than it brings, and with a busy neighbour on the machine many times more. Decided by counts, never by the clock: the
    number of threads changes the last bits, and a run must give the same ones again.

    Args:
        step_flops: floating-point operations of an optimizer step, forward and backward; None where nobody knows.
        operator_flops: floating-point operations of a forward pass by its operators, on average; None likewise.
    """
    if step_flops is None or operator_flops is None:
        return False
    return step_flops < SMALL_STEP_FLOPS or operator_flops < _SMALL_OPERATOR_FLOPS


@contextmanager
def cpu_threads(wanted: int) -> Iterator[None]:
    """Set how many threads torch's CPU operators use, and set back what was.

    Args:
        wanted: number of threads; 0 leaves what is set.
    """
    before = torch.get_num_threads()
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
