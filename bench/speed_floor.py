"""What a step can't be faster than, by a formula and two measured rates of the device.

`max(bytes / copy bandwidth, FLOPs / matmul rate)` for one optimizer step on a full batch, validation left out.

Bytes, with P bytes of parameters, S bytes that autograd saves for backward and I bytes of inputs and targets:

    forward reads the weights                        P
    backward reads them again, writes the gradients  2 P
    clipping reads the gradients                     P, where there is clipping
    Adam reads weights, gradients and two moments,
    writes weights and two moments                   7 P
    saved activations: written once, read once       2 S
    the batch is read                                I

FLOPs: those of forward and backward as torch.utils.flop_counter counts them (matrix products and attention); those of
the optimizer and of element-wise operations are left out. What stays in a cache moves faster than the bandwidth says,
so for a model of some megabytes or less the first term is no bound, only a scale.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from speed_work import Work
from torch.utils.flop_counter import FlopCounterMode

_REPEATS = 5


@dataclass
class Floor:
    """A step's least time and what it is made of."""

    bytes: float
    flops: float
    bandwidth: float  # bytes a second, read and written
    rate: float  # floating-point operations a second

    @property
    def seconds(self) -> float:
        """The least time of a step."""
        return max(self.bytes / self.bandwidth, self.flops / self.rate)


def floor(work: Work, device: torch.device, quick: bool) -> Floor:
    """Count a step's bytes and FLOPs, measure the device.

    Args:
        work: the workload.
        device: where its loops run.
        quick: measure with small tensors.
    """
    moved, flops = step_counts(work, device)
    return Floor(moved, flops, copy_bandwidth(device, quick), matmul_rate(device, quick))


def step_counts(work: Work, device: torch.device) -> tuple[float, float]:
    """Return the bytes and FLOPs of a step as this module's head says."""
    net = work.net().to(device)
    x, y = (part[: work.size.batch].to(device) for part in work.train)
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    batch = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in (x, y)}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own | batch.keys():
            saved[storage.data_ptr()] = storage  # held, so that no later one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as count:
        work.loss(net(x), y).backward()
    parameters = sum(parameter.nbytes for parameter in net.parameters())
    activations = sum(storage.nbytes() for storage in saved.values())
    passes = 10 + (work.size.clip > 0)
    return passes * parameters + 2 * activations + sum(batch.values()), count.get_total_flops()


def copy_bandwidth(device: torch.device, quick: bool) -> float:
    """Return how many bytes a second the device reads and writes, of a copy that no cache holds."""
    large = 2**30 if device.type == "cuda" else 2**27
    source = torch.ones((2**22 if quick else large) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def matmul_rate(device: torch.device, quick: bool) -> float:
    """Return the FLOPs a second of a large product of fp32 matrices, in torch's default precision."""
    size = 256 if quick else 8192 if device.type == "cuda" else 1536
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / _best(lambda: left @ right, device)


def _best(call: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest time of a call: a rate of the machine, so what disturbs it does not count."""
    times = []
    for _ in range(_REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()  # host-device synchronisation: the call only queued its work
        times.append(time.perf_counter() - start)
    return min(times[1:])
