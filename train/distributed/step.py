"""The optimizer step of several processes: each has its part of every batch, and all make the same step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.shares import with_stand_ins
from train.checkpointing.run_state import other_modules
from train.errors import TrainerContractError, TrainingError
from train.steps.eager import EagerStep, Window

_SAME = 1e-6  # relative: devices of different kinds may take a norm in different ways


class Hook(nn.Module):
    """A trainer's forward hook as a module, for torch's engines. The trainer keeps its plain model.

    Args:
        trainer: a BaseTrainer. All that its optimizer updates is in this module: its model, other modules such as a
            loss with parameters, and parameters of its own.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList([trainer.model, *other_modules(trainer).values()])
        known = {id(parameter) for parameter in self.parameters()}
        updated = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
        loose = [parameter for parameter in updated if id(parameter) not in known]
        if not all(isinstance(parameter, nn.Parameter) for parameter in loose):
            raise TrainerContractError(
                f"{type(trainer).__name__}: the optimizer updates a tensor that is no nn.Parameter; several processes "
                "need it to be one."
            )
        self.loose = nn.ParameterList(loose)
        self._hook = trainer._forward_batch

    def forward(self, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        return self._hook(batch)


class DistributedStep(EagerStep):
    """The eager step over DistributedDataParallel. What it adds waits for the device only on the CPU.

    A step's gradient is the mean over the samples (or what `_set_loss_count` counts) of all processes' batches, however
    they are spread. Beside the gradients the processes add up, in one small reduction, their counts, whether a loss was
    not finite, and whether somebody was asked to stop.

    Args:
        trainer: a BaseTrainer.
        options: for `EagerStep`.
    """

    def __init__(self, trainer: Any, **options: Any) -> None:
        super().__init__(**options)
        self.trainer, self.process_group = trainer, trainer._process_group
        # Counts are told in this unit, so that losses keep their size.
        self.unit = max(1.0, trainer.config.batch_size / self.process_group.world_size)
        self._engine: nn.Module | None = None
        self._trained: list[tuple[int, bool]] = []

    def pieces(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[Window]:
        """Yield what `__call__` takes; what is trained may have changed since the last epoch."""
        groups = self.update.optimizer.param_groups
        trained = [(id(parameter), parameter.requires_grad) for group in groups for parameter in group["params"]]
        if trained != self._trained:
            self._engine, self._trained = self.make_engine(), trained
        return super().pieces(loader, skip, skipped)

    def make_engine(self) -> nn.Module:
        """Return the module that gives a batch's loss and adds up gradients over the processes."""
        hook = Hook(self.trainer)
        hook.never = nn.Parameter(torch.zeros((), device=self.trainer.device))  # else torch warns that all are used
        # With this torch can leave out what a batch doesn't use. And it keeps its buckets from step to step, so that
        # sums have the same bits after a resume.
        return DistributedDataParallel(hook, find_unused_parameters=True)

    def accumulating(self) -> AbstractContextManager[None]:
        """Surround the forward and backward of a batch that isn't its step's last: gradients stay here."""
        return self._engine.no_sync()

    def step(self, piece: Window) -> None:
        """Do one step: as `EagerStep.step`, over the batches of all processes."""
        self.update.guard.begin(piece.batches)
        self.update.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=self.trainer.device)
        for number, batch in enumerate(piece.batches, 1):
            with self.accumulating() if number < len(piece) else nullcontext():
                loss = self._engine(batch)
                weight = torch.as_tensor(self.count(), dtype=torch.float64, device=total.device) / self.unit
                self.update.backward(loss * weight.to(loss.dtype))
            total += weight
        self.finish(self._settle(total).to(loss.dtype))

    def _settle(self, total: torch.Tensor) -> torch.Tensor:
        """Agree with the other processes on a step, and return what its gradient must be divided by."""
        guard, request = self.update.guard, self.trainer.stop_request
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
        """Put this process's part of every batch through the hook, with the main process's buffers; count them."""
        self.require_same_weights()
        self.process_group.broadcast(self.trainer.model, buffers_only=True)
        return super().evaluate(loader)

    @torch.no_grad()
    def require_same_weights(self) -> None:
        """Check that all processes have the same weights. A host-device synchronisation.

        Raises:
            TrainingError: they have not: a hook has changed some, or what it does depends on the process.
        """
        named = dict(self.trainer.model.named_parameters())
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

    def _ahead(self, loader: Iterable[Any]) -> Iterable[Any]:
        return super()._ahead(with_stand_ins(loader))
