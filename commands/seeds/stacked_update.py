"""Clipping and the optimizer's step for several members at once: train/compiled/rule.py's formulas on long rows."""

from collections.abc import Sequence

import torch

from train.compiled.rule import UpdateRule
from train.context import RunContext

Tensors = list[torch.Tensor]


class StackedUpdate:
    """The trained parameters of N members and their optimizers' moments.

    Those of an optimizer's group lie in one tensor (N, D), so that the formula is a dozen operations however many
    parameters there are; what the loss needs are views of it.

    Args:
        runs: run of each member.
        parameters: trained parameters of each member, in one order.

    Attributes:
        views: view of each parameter of all members, (N, *shape of the parameter).

    Raises:
        ValueError: an optimizer that has no formula, or settings that differ; the text says which.
    """

    def __init__(self, runs: Sequence[RunContext], parameters: Sequence[Tensors]) -> None:
        self.clip = runs[0].update.clip
        self.rules = [UpdateRule(run.optimizer, own, 0.0) for run, own in zip(runs, parameters, strict=True)]
        self.rule = self.rules[0]
        for other in self.rules[1:]:
            if other.settings != self.rule.settings or other.groups != self.rule.groups:
                raise ValueError("the optimizers' settings, besides the learning rate, differ from seed to seed")
        if len({parameter.dtype for own in parameters for parameter in own}) > 1:
            raise ValueError("the parameters have different dtypes")
        self._done = [rule.steps_done() for rule in self.rules]
        self._steps = 0
        each = self.rule.moments_each
        self._groups = sorted(set(self.rule.groups))
        states = [rule.state() for rule in self.rules]
        self._flat = self._gather(parameters)
        self._moments = [self._gather([state[kind::each] for state in states]) for kind in range(each)]
        self.views = self._views(self._flat)
        self._homes: list[Tensors] = []  # where each member itself has its parameters and moments
        for own, state in zip(parameters, states, strict=True):
            by_kind = [moment for kind in range(each) for moment in state[kind::each]]
            self._homes.append([*(parameter.detach() for parameter in own), *by_kind])

    def _gather(self, columns: Sequence[Tensors]) -> Tensors:
        """Lay tensors of each member side by side: for each group (N, D)."""
        return [
            torch.stack([torch.cat([own[n].detach().flatten() for n in self._of(group)]) for own in columns])
            for group in self._groups
        ]

    def _of(self, group: int) -> list[int]:
        return [number for number, its in enumerate(self.rule.groups) if its == group]

    def _views(self, flat: Tensors) -> Tensors:
        views: dict[int, torch.Tensor] = {}
        for group, rows in zip(self._groups, flat, strict=True):
            sizes = [self.rule.parameters[number].numel() for number in self._of(group)]
            for number, part in zip(self._of(group), rows.split(sizes, dim=1), strict=True):
                views[number] = part.view(len(part), *self.rule.parameters[number].shape)
        return [views[number] for number in range(len(views))]

    def __call__(self, gradients: Tensors, losses: torch.Tensor) -> list[int]:
        """Do a step.

        Args:
            gradients: gradient of each parameter, (N, *shape of the parameter).
            losses: (N,) loss of each member, which must be finite as the gradients must.

        Returns:
            The members whose numbers are not finite: their parameters and moments stay.
        """
        self._steps += 1
        rows = [
            torch.cat([gradients[n].reshape(len(losses), -1) for n in self._of(group)], dim=1) for group in self._groups
        ]
        norms = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(row, dim=1) for row in rows]), dim=0)
        sound = torch.isfinite(norms + losses)
        if self.clip:
            factor = (self.clip / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1)
            for row in rows:
                row.mul_(factor)
        numbers = [rule.hyperparameters(done + self._steps) for rule, done in zip(self.rules, self._done, strict=True)]
        table = torch.tensor(numbers, dtype=torch.float64).to(rows[0].dtype)  # (N, 3 * groups of the optimizer)
        whole = bool(sound.all())  # on the CPU there is nothing to wait for
        for place, (group, row) in enumerate(zip(self._groups, rows, strict=True)):
            old = [self._flat[place], *(moments[place] for moments in self._moments)]
            columns = [table[:, 3 * group + column].unsqueeze(1) for column in range(3)]
            new, moved = self.rule.elementwise(group, old[0], row, old[1:], columns)
            for before, after in zip(old, [new, *moved], strict=True):
                before.copy_(after if whole else torch.where(sound.unsqueeze(1), after, before))
        bad = [] if whole else (~sound).nonzero().flatten().tolist()
        for number in bad:
            self._done[number] -= 1
        return bad

    @torch.no_grad()
    def scatter_back(self) -> None:
        """Copy parameters and moments to where the members' own models and optimizers have them."""
        views = [*self.views, *(view for moments in self._moments for view in self._views(moments))]
        columns = [view.unbind() for view in views]
        for number, (homes, rule) in enumerate(zip(self._homes, self.rules, strict=True)):
            torch._foreach_copy_(homes, [column[number] for column in columns])
            rule.count_steps(self._steps)
        self._done = [done + self._steps for done in self._done]
        self._steps = 0
