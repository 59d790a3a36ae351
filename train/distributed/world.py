"""The processes that train one model together, as `torchrun` starts them."""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from beautilog import ColoredConsoleHandler

from train.errors import ElsewhereError, TrainingError
from train.meters import EpochMeter

T = TypeVar("T")
_FAREWELL = timedelta(seconds=60)  # that the others give the main process to write its last files
_FAREWELL_OF_ONE = timedelta(seconds=3)  # where it may not know yet


class World:
    """The processes of a run. One process alone is a world of its own, in which each method is free.

    Args:
        rank: of this process, from 0; 0 is the main one, which writes the run's files.
        size: how many there are.
        local_rank: of this process on its machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and shows the bar."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def gpu(self) -> int | None:
        """The number of this process's GPU; None leaves the choice to the config."""
        return None if self.alone else self.local_rank

    def gather(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_rank(self, rank: int, make: Callable[[], T]) -> T:
        """Let one process make a value, and return it in all of them.

        Args:
            rank: of the one.
            make: makes it; called in that process only.

        Raises:
            ElsewhereError: it failed there. In that process its own error is raised.
        """
        if self.alone:
            return make()
        box: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.rank == rank:
            try:
                box[0] = make()
            except Exception as error:
                failure, box[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(box, rank)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise ElsewhereError(f"process {rank} has failed: {box[1]}")
        return box[0]

    def largest(self, number: int) -> int:
        """Return the largest of the numbers that the processes give."""
        if self.alone:
            return number
        box = torch.tensor(number)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def add_up(self, numbers: torch.Tensor) -> torch.Tensor:
        """Replace numbers by their sums over the processes; on a GPU nothing waits."""
        if not self.alone:
            dist.all_reduce(numbers)
        return numbers

    def merged(self, meter: EpochMeter) -> EpochMeter:
        """Return what all processes have measured, the same to the bit in each. Host-device synchronisations."""
        if self.alone:
            return meter
        whole = EpochMeter()
        for totals in self.gather({name: meter.total(name) for name in meter.names()}):
            for name, (total, samples) in totals.items():
                whole.add_sum(name, total, samples)
        return whole

    def mean(self, meter: EpochMeter, name: str, own: float) -> float:
        """Return one of the averages that all processes have measured together, the same in each.

        Args:
            meter: of this process.
            name: of the average.
            own: that average of this process, which has been read.
        """
        if self.alone:
            return own
        total, samples = self.add_up(torch.tensor(meter.total(name), dtype=torch.float64)).tolist()
        return total / max(samples, 1e-300)

    def spread(self, module: torch.nn.Module, buffers_only: bool = False) -> None:
        """Give all processes the main one's weights and buffers, or its buffers only."""
        tensors = [] if self.alone else list(module.buffers()) if buffers_only else list(module.state_dict().values())
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)

    def hold_signals(self) -> None:
        """Let the main process of several write its last word: torchrun ends all as soon as one has failed."""
        if not self.alone and self.main:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


_WORLD = World()


def world() -> World:
    """Return the world that this process is in."""
    return _WORLD


def _asked_size() -> int:
    return int(os.environ.get("WORLD_SIZE") or 1)  # as torchrun sets it


@contextmanager
def joined_world(minutes: float) -> Iterator[World]:
    """Meet the other processes, if there are any, for a block.

    Args:
        minutes: that a process waits for another one before it fails.
    """
    global _WORLD
    if _asked_size() == 1:
        yield _WORLD
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    waiting = timedelta(minutes=minutes)
    store = next(dist.rendezvous("env://", timeout=waiting))[0]
    # torchrun keeps its store when it starts the processes again: without a prefix they would look for the dead ones.
    store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    # gloo for the CPU, and nccl for CUDA where that is
    dist.init_process_group(store=store, rank=rank, world_size=_asked_size(), timeout=waiting)
    _WORLD = World(rank, _asked_size(), local)
    if not _WORLD.main:
        _hush()
    try:
        yield _WORLD
        dist.barrier()
    except BaseException as error:
        _part(_WORLD, store, error)
        raise
    else:
        dist.destroy_process_group()
    finally:
        _WORLD = World()


class LostPeer(TrainingError):
    """Another process that is gone."""


def lost_peer(error: BaseException) -> TrainingError | None:
    """Return what to say of an error that means that another process is gone; None for any other."""
    text = str(error)
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "NCCL")
    if _WORLD.alone or not isinstance(error, RuntimeError) or not any(sign in text for sign in signs):
        return None
    return LostPeer(
        f"process {_WORLD.rank} of {_WORLD.size} waited for another one in vain: that has ended, and its last words "
        "say why, or it took longer than peer_timeout_minutes. `--resume` goes on from the last checkpoint.\n"
        f"  {text.splitlines()[0]}"
    )


def _part(left: World, store: dist.Store, error: BaseException) -> None:
    """Leave after a failure: the main process last, or torchrun would end it before it has written what happened.

    The group is not taken down, since that may wait for a process that is gone. What is perhaps this process's own
    trouble alone is not kept from the main one for long, which may be waiting for this one.
    """
    shared = isinstance(error, ElsewhereError | KeyboardInterrupt | LostPeer)
    with contextlib.suppress(Exception):  # a store that is gone with its process
        if left.main:
            store.set("main-has-left", "1")
        else:
            store.wait(["main-has-left"], _FAREWELL if shared else _FAREWELL_OF_ONE)


def _hush() -> None:
    """Show errors only: the main process says the rest."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ColoredConsoleHandler):
            handler.setLevel(logging.ERROR)
