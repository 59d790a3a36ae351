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

T = TypeVar("T")
_FAREWELL = timedelta(seconds=60)  # that the others give the main process to write its last files
_FAREWELL_OF_ONE = timedelta(seconds=3)  # where it may not know yet


class ProcessGroup:
    """The processes of a run. One process alone is a group of its own, in which each method is free.

    Args:
        rank: number of this process, from 0; process 0 is the main one, which writes the run's files.
        world_size: number of processes.
        local_rank: number of this process among those of the same machine, from 0.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes files and shows the bar."""
        return self.rank == 0

    @property
    def is_single_process(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    @property
    def gpu(self) -> int | None:
        """The number of this process's GPU; None leaves the choice to the config."""
        return None if self.is_single_process else self.local_rank

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values that all processes give, by rank."""
        if self.is_single_process:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, make: Callable[[], T], source: int = 0) -> T:
        """Let one process make a value, and return it in all of them.

        Args:
            make: function that makes the value; called in one process only.
            source: number of the process that makes the value.

        Raises:
            ElsewhereError: it failed there. In that process its own error is raised.
        """
        if self.is_single_process:
            return make()
        box: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.rank == source:
            try:
                box[0] = make()
            except Exception as error:
                failure, box[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(box, source)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise ElsewhereError(f"process {source} has failed: {box[1]}")
        return box[0]

    def all_reduce_max(self, number: int) -> int:
        """Return the largest of the numbers that the processes give."""
        if self.is_single_process:
            return number
        box = torch.tensor(number)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def all_reduce_sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """Replace numbers by their sums over the processes; on a GPU nothing waits."""
        if not self.is_single_process:
            dist.all_reduce(numbers)
        return numbers

    def broadcast(self, module: torch.nn.Module, buffers_only: bool = False) -> None:
        """Give all processes the main one's weights and buffers, or its buffers only."""
        tensors = (
            []
            if self.is_single_process
            else list(module.buffers())
            if buffers_only
            else list(module.state_dict().values())
        )
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)

    def hold_signals(self) -> None:
        """Let the main process of several write its last word: torchrun ends all as soon as one has failed."""
        if not self.is_single_process and self.is_main_process:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


_GROUP = ProcessGroup()


def process_group() -> ProcessGroup:
    """Return the processes that train with this one."""
    return _GROUP


def _asked_size() -> int:
    return int(os.environ.get("WORLD_SIZE") or 1)  # as torchrun sets it


@contextmanager
def joined_process_group(minutes: float) -> Iterator[ProcessGroup]:
    """Meet the other processes, if there are any, for a block.

    Args:
        minutes: time that a process waits for another one before it fails.
    """
    global _GROUP
    if _asked_size() == 1:
        yield _GROUP
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
    _GROUP = ProcessGroup(rank, _asked_size(), local)
    if not _GROUP.is_main_process:
        _hush()
    try:
        yield _GROUP
        dist.barrier()
    except BaseException as error:
        _part(_GROUP, store, error)
        raise
    else:
        dist.destroy_process_group()
    finally:
        _GROUP = ProcessGroup()


class LostPeer(TrainingError):
    """Another process that is gone."""


def lost_peer(error: BaseException) -> TrainingError | None:
    """Return what to say of an error that means that another process is gone; None for any other."""
    text = str(error)
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "NCCL")
    if _GROUP.is_single_process or not isinstance(error, RuntimeError) or not any(sign in text for sign in signs):
        return None
    return LostPeer(
        f"process {_GROUP.rank} of {_GROUP.world_size} waited for another one in vain: that has ended, and its last "
        "words say why, or it took longer than peer_timeout_minutes. `--resume` goes on from the last checkpoint.\n"
        f"  {text.splitlines()[0]}"
    )


def _part(left: ProcessGroup, store: dist.Store, error: BaseException) -> None:
    """Leave after a failure: the main process last, or torchrun would end it before it has written what happened.

    The group is not taken down, since that may wait for a process that is gone. What is perhaps this process's own
    trouble alone is not kept from the main one for long, which may be waiting for this one.
    """
    shared = isinstance(error, ElsewhereError | KeyboardInterrupt | LostPeer)
    with contextlib.suppress(Exception):  # a store that is gone with its process
        if left.is_main_process:
            store.set("main-has-left", "1")
        else:
            store.wait(["main-has-left"], _FAREWELL if shared else _FAREWELL_OF_ONE)


def _hush() -> None:
    """Show errors only: the main process says the rest."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ColoredConsoleHandler):
            handler.setLevel(logging.ERROR)
