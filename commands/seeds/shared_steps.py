"""The steps that members do at once. Between two hand-backs their numbers live here, stacked."""

from collections.abc import Sequence
from typing import Any

import torch

from commands.seeds.member import RunningMember
from commands.seeds.noise import Noise
from commands.seeds.stacked_loss import StackedLoss
from commands.seeds.stacked_update import StackedUpdate
from data.batches import tensors_in
from train.compiled.program import ImpureLoss, LossProgram
from train.context import RunContext
from train.steps.guard import StepSnapshot
from train.steps.update import note_step

Tensors = list[torch.Tensor]
_MOST_SHAPES = 4  # of batches, for each of which there is a program; batches of others are done one by one


class SharedSteps:
    """Does one step of each member, in one go.

    At an epoch's first step the members' parameters, moments, buffers and random numbers are taken; `scatter_back`
    gives them back, so that all else (validation, checkpoints, the end of a run) finds an ordinary trainer.

    Args:
        members: all members of the group; they stand at the same step, and stay so.
    """

    def __init__(self, members: Sequence[RunningMember]) -> None:
        self._everyone = list(members)
        self._members: list[RunningMember] = []  # those whose numbers are here
        self._losses: dict[Any, StackedLoss] = {}  # by the shapes of a batch
        self._buffers: Tensors = []
        self._homes: list[Tensors] = []  # where each member itself has its buffers
        self._taken: tuple[StackedUpdate, torch.Tensor] | None = None  # their update, and what was measured
        self._generators: list[torch.Generator] = []
        self._looked: set[Any] = set()  # shapes whose loss functions were looked at in this epoch

    @torch.no_grad()
    def step(self, members: Sequence[RunningMember]) -> None:
        """Do a step of members that each have a step input.

        Raises:
            ImpureLoss, ValueError: it can't be done at once (any more); nothing has changed.
        """
        batches = [member.next_input.microbatches[0] for member in members]
        leaves = _stacked(batches)
        loss = self._loss_for(members, batches, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves))
        if loss is None:
            self.scatter_back()
            for member in members:
                with torch.enable_grad(), member.at_work():
                    member.run.step(member.next_input)
            return
        update, sums = self._taken or self._take(members, loss)
        before, noise = self._draw(loss.noise)
        parameters = self._parameters(loss, update)
        try:
            gradients, buffers, values = loss(parameters, self._buffers, leaves, noise)
        except ImpureLoss:  # when it is recorded, at its first call: nothing has happened but the drawing
            for generator, state in zip(self._generators, before, strict=False):
                generator.set_state(state)
            raise
        place = 2 * loss.entries.index("loss")
        bad = update(gradients, values[:, place])
        for number in bad:
            for new, old in zip(buffers, self._buffers, strict=True):
                new[number] = old[number]
            snapshot = StepSnapshot([batches[number]], before[number] if before else None)
            members[number].run.guard.note_bad(1, snapshot)
        self._buffers = buffers
        sums.add_(values)
        for member in members if self._steps_schedulers else ():
            member.run.step_scheduler("step")

    def scatter_back(self) -> None:
        """Give the members their numbers back."""
        if self._taken is None:
            return
        self._taken[0].scatter_back()
        for number, member in enumerate(self._members):
            for own, stack in zip(self._homes[number], self._buffers, strict=True):
                own.copy_(stack[number])
            member.random["torch"] = self._generators[number].get_state()
        self._members, self._taken = [], None

    def _take(self, members: Sequence[RunningMember], loss: StackedLoss) -> tuple[StackedUpdate, torch.Tensor]:
        runs = [member.run for member in members]
        trained = [[program.parameters[number] for number in program.trained] for program in loss.programs]
        update = StackedUpdate(runs, trained)
        self._homes = [program.buffers for program in loss.programs]
        self._buffers = [torch.stack(column) for column in zip(*self._homes, strict=True)]
        self._generators = [member.generator() for member in members]
        self._steps_schedulers = runs[0].scheduler_interval == "step"
        # What was measured since the epoch began goes on, and the members' meters see it grow.
        kept = [[number for name in loss.entries for number in run.meter.kept(name)] for run in runs]
        sums = torch.tensor(kept, dtype=torch.float64)
        for run, own in zip(runs, sums, strict=True):
            note_step(run.optimizer)
            for number, name in enumerate(loss.entries):
                run.meter.keep_sum(name, own[2 * number], own[2 * number + 1])
        self._members, self._taken = list(members), (update, sums)
        return self._taken

    def _parameters(self, loss: StackedLoss, update: StackedUpdate) -> Tensors:
        """Return what the loss takes: the trained parameters' stacks, and those of the others."""
        trained = dict(zip(loss.trained, update.views, strict=True))
        columns = enumerate(zip(*(program.parameters for program in loss.programs), strict=True))
        return [trained[n] if n in trained else torch.stack([p.detach() for p in column]) for n, column in columns]

    def _draw(self, noise: Sequence[Noise]) -> tuple[Tensors, Tensors]:
        """Draw a step's random numbers; returns the generators' states of before, and the numbers."""
        before = [generator.get_state() for generator in self._generators] if noise else []
        return before, [each.draw(self._generators) for each in noise]

    # --------------------------------------------------------------------------------------------------- programs

    def _loss_for(self, members: Sequence[RunningMember], batches: Sequence[Any], shape: Any) -> StackedLoss | None:
        """Return the program for batches of a shape; None where they are to be done one by one."""
        if members[0].run.position.steps == 0:
            self._looked.clear()
        if len(members) < len(self._everyone):
            still = [number for number, member in enumerate(self._everyone) if member in members]
            for loss in self._losses.values():
                loss.keep(still)
            self._everyone = list(members)
        if shape not in self._losses:
            if len(self._losses) == _MOST_SHAPES:
                return None
            self.scatter_back()  # the loss functions are asked with the members' own tensors
            made = StackedLoss([_program(m, batch) for m, batch in zip(members, batches, strict=True)])
            if any(other.trained != made.trained or other.entries != made.entries for other in self._losses.values()):
                raise ImpureLoss("what is measured or trained depends on the batch's shape")
            self._losses[shape] = made
        elif shape not in self._looked:
            self._look_again(members, self._losses[shape], batches)
        self._looked.add(shape)
        return self._losses[shape]

    @torch.enable_grad()
    def _look_again(self, members: Sequence[RunningMember], loss: StackedLoss, batches: Sequence[Any]) -> None:
        """Look whether the loss functions still do what was recorded, of the same parameters; once an epoch."""
        for member, program, batch in zip(members, loss.programs, batches, strict=True):
            if [*map(id, _wanted(member.run))] != [*map(id, program.parameters)]:
                raise ImpureLoss("other parameters are trained than at the start")
            difference = program.difference(batch)
            if difference:
                raise ImpureLoss(f"the loss function is another one than at the start: {difference}")


def _stacked(batches: Sequence[Any]) -> Tensors:
    """Return the batches' tensors, stacked."""
    rows = [_leaves(batch) for batch in batches]
    try:
        return [torch.stack(column) for column in zip(*rows, strict=True)]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ImpureLoss(f"the members' batches have different shapes: {error}") from error


def _leaves(batch: Any) -> Tensors:
    """Return a batch's tensors; of the usual kinds without a walk through it, which takes longer than stacking."""
    if type(batch) is dict and all(type(value) is torch.Tensor for value in batch.values()):
        return list(batch.values())
    return [batch] if type(batch) is torch.Tensor else list(tensors_in(batch))


@torch.enable_grad()
def _program(member: RunningMember, batch: Any) -> LossProgram:
    return LossProgram(member.run, batch, _wanted(member.run))


def _wanted(run: RunContext) -> Tensors:
    """Return the parameters that a run's optimizer would train."""
    groups = run.optimizer.param_groups
    return [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]
