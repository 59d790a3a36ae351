"""The optimizer step of several processes: each has its part of every batch, and all make the same step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.sharding import with_stand_ins
from train.context import RunContext
from train.distributed.loss_module import LossModule
from train.errors import TrainingError
from train.steps.eager import EagerStep, StepInput

if TYPE_CHECKING:  # takes half a second, which plain data parallelism never needs
    from train.distributed.sharding import ShardedLoss

_SAME = 1e-6  # relative: devices of different kinds may take a norm in different ways


class DistributedStep(EagerStep):
    """The eager step over DistributedDataParallel. What it adds waits for the device only on the CPU.

    A step's gradient is the mean over the samples (or what `_set_loss_count` counts) of all processes' batches, however
    they are spread. Beside the gradients the processes add up, in one small reduction, their counts, whether a loss was
    not finite, and whether somebody was asked to stop.

    Args:
        run: run whose steps are done.
        options: arguments of `EagerStep`, by name.
    """

    def __init__(self, run: RunContext, **options: Any) -> None:
        super().__init__(**options)
        self.run, self.process_group = run, run.process_group
        # Counts are given in this unit, so that losses keep their size.
        self.unit = max(1.0, run.config.batch_size / self.process_group.world_size)
        self._engine: nn.Module | None = None
        self._trained: list[tuple[int, bool]] = []

    def step_inputs(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[StepInput]:
        """Yield what `__call__` takes; what is trained may have changed since the last epoch."""
        groups = self.update.optimizer.param_groups
        trained = [(id(parameter), parameter.requires_grad) for group in groups for parameter in group["params"]]
        if trained != self._trained:
            self._engine, self._trained = self.make_engine(), trained
        return super().step_inputs(loader, skip, skipped)

    def make_engine(self) -> nn.Module:
        """Return the module that gives a batch's loss and adds up gradients over the processes."""
        module = LossModule(self.run.trainer, self.run.loss_function)
        module.never = nn.Parameter(torch.zeros((), device=self.run.device))  # else torch warns that all are used
        # With this torch can leave out what a batch doesn't use. And it keeps its buckets from step to step, so that
        # sums have the same bits after a resume.
        return DistributedDataParallel(module, find_unused_parameters=True)

    @property
    def engine(self) -> nn.Module:
        """What `make_engine` has made for this epoch."""
        if self._engine is None:
            raise RuntimeError("there is no engine before the first epoch's step inputs")
        return self._engine

    def accumulating(self) -> AbstractContextManager[None]:
        """Surround the forward and backward of a batch that isn't its step's last: gradients stay here."""
        return cast(DistributedDataParallel, self.engine).no_sync()

    def step(self, step_input: StepInput) -> None:
        """Do one step: as `EagerStep.step`, over the batches of all processes."""
        self.update.guard.begin(step_input.microbatches)
        self.update.zero_grad()
        engine, total = self.engine, torch.zeros((), dtype=torch.float64, device=self.run.device)
        for number, batch in enumerate(step_input.microbatches, 1):
            with self.accumulating() if number < len(step_input) else nullcontext():
                loss = engine(batch)
                weight = torch.as_tensor(self.count(), dtype=torch.float64, device=total.device) / self.unit
                self.update.backward(loss * weight.to(loss.dtype))
            total += weight
        self.finish(self._settle(total).to(loss.dtype))

    def _settle(self, total: torch.Tensor) -> torch.Tensor:
        """Agree with the other processes on a step, and return what its gradient must be divided by."""
        guard, request = self.update.guard, self.run.stop_request
        sums = torch.stack([total, guard.verdict()])
        if sums.device.type == "cpu":
            sums = self.process_group.all_reduce_sum(torch.cat([sums, request.votes()]))
            request.hear(sums[2:])
        else:  # the device is not waited for; the hosts are
            sums = self.process_group.all_reduce_sum(sums)
            request.hear(self.process_group.all_reduce_sum(request.votes()))
        guard.take_verdict(sums[1])
        return sums[0] / self.process_group.world_size  # torch's engines give the mean over the processes

    def evaluate(self, loader: Iterable[Any]) -> int:
        """Measure this process's part of every batch, with the main process's buffers; return how many there were."""
        self.require_same_weights()
        self.process_group.broadcast(self.run.model, buffers_only=True)
        return super().evaluate(loader)

    @torch.no_grad()
    def require_same_weights(self) -> None:
        """Check that all processes have the same weights. A host-device synchronisation.

        Raises:
            TrainingError: they have not: a loss function has changed some, or what it does depends on the process.
        """
        named = dict(self.run.model.named_parameters())
        norms = torch.stack([torch.linalg.vector_norm(parameter.double()) for parameter in named.values()])
        ends = torch.stack([norms, -norms])
        torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        apart = ((ends[0] + ends[1]) > _SAME * ends[0]).tolist()
        if any(apart):
            raise TrainingError(
                f"the processes' weights differ, of {sum(apart)} of {len(named)} parameters, first "
                f"{list(named)[apart.index(True)]}: something changes them in a way that depends on the process, "
                "or has unfrozen some in the middle of an epoch."
            )

    def ahead(self, loader: Iterable[Any]) -> Iterable[Any]:
        return super().ahead(with_stand_ins(loader))


class ShardedStep(DistributedStep):
    """The step of several processes over a sharded model."""

    def make_engine(self) -> nn.Module:
        """Return the trainer's sharded loss function."""
        return self._sharded

    @property
    def _sharded(self) -> "ShardedLoss":
        if self.run.sharded is None:
            raise RuntimeError("the model is not sharded")
        return self.run.sharded

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Keep the gradient of a batch that isn't its step's last, whole, in this process."""
        self._sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._sharded.set_requires_gradient_sync(True)

    def require_same_weights(self) -> None:
        """Do nothing: each process has other slices."""
