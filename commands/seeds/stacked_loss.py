"""The losses and gradients of several members, each of its own batch by its own weights, as one program."""

from collections.abc import Sequence
from typing import Any

import torch

from commands.seeds.graph_cleanup import clean_up, free_layouts
from commands.seeds.noise import Noise, take_out_noise
from train.compiled.program import ImpureLoss, LossProgram

Tensors = list[torch.Tensor]


class StackedLoss:
    """What the loss functions of N members compute for batches of one shape.

    Each member's loss function is recorded (`LossProgram`) and all must ask for the same operations. That record under
    `torch.func.vmap`, recorded once more, is operations on tensors with a first dimension of N: products of matrices
    become batched ones, and nothing of vmap is left at run time.

    Args:
        programs: recorded loss function of each member.

    Attributes:
        noise: the random numbers of a step, to be drawn for each member.
        trained: numbers of the parameters that have a gradient.
        entries: names of the quantities that are measured.

    Raises:
        ImpureLoss: members compute different things, or vmap can't compute them together.
    """

    def __init__(self, programs: Sequence[LossProgram]) -> None:
        first = programs[0]
        for other in programs[1:]:
            same = other.graph.code == first.graph.code and len(other.held) == len(first.held)
            if not (same and other.entries == first.entries and other.trained == first.trained):
                raise ImpureLoss("the operations of one seed's loss function are not those of another's")
        self.programs = list(programs)
        self.trained, self._weights = first.trained, [weight for _, weight in first.entries]
        self.entries = [name for name, _ in first.entries]
        self._counts = (len(first.parameters), len(first.buffers), len(first.held))
        self._single = first.graph
        self.noise: list[Noise] = take_out_noise(self._single)
        free_layouts(self._single)
        self._stacked: dict[Any, torch.fx.GraphModule] = {}
        self._held: tuple[Any, Tensors, list[int | None]] | None = None

    def keep(self, members: Sequence[int]) -> None:
        """Leave out all but some members, given by their present numbers."""
        self.programs, self._held = [self.programs[number] for number in members], None

    def __call__(
        self, parameters: Tensors, buffers: Tensors, leaves: Tensors, noise: Tensors
    ) -> tuple[Tensors, Tensors, torch.Tensor]:
        """Compute; all tensors have a first dimension of N.

        Returns:
            The gradients of the parameters in `trained`, new buffers, and (N, 2 * entries) float64: for each entry its
            sum and over how many samples it is.
        """
        held, places = self._held_tensors()
        inputs = [*parameters, *buffers, *leaves, *held, *noise]
        key = (len(self.programs), tuple(places))
        if key not in self._stacked:
            self._stacked[key] = self._record(inputs, places, len(leaves))
        found = self._stacked[key](*inputs)
        count = len(self.trained)
        return list(found[:count]), list(found[count:-1]), found[-1]

    def _held_tensors(self) -> tuple[Tensors, list[int | None]]:
        """Return the tensors that loss functions keep: stacked where members' differ, else one for all."""
        columns = list(zip(*(program.held for program in self.programs), strict=True))
        versions = [tensor._version for column in columns for tensor in column]
        if self._held is None or self._held[0] != versions:
            alike = [all(torch.equal(column[0], other) for other in column[1:]) for column in columns]
            held = [column[0] if same else torch.stack(column) for column, same in zip(columns, alike, strict=True)]
            self._held = (versions, held, [None if same else 0 for same in alike])
        return self._held[1], self._held[2]

    def _record(self, inputs: Tensors, places: list[int | None], leaves: int) -> torch.fx.GraphModule:
        from torch.fx.experimental.proxy_tensor import make_fx

        parameters, buffers, held = self._counts
        before = parameters + buffers + leaves
        dims = (*[0] * before, *places, *[0] * (len(inputs) - before - held))
        try:
            functorch = torch._C._functorch
            functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]  # torch's, without a stub
            # Tracing with real tensors would change those that the graph writes to, such as the drawn numbers.
            stacked = make_fx(torch.vmap(self._one, in_dims=dims), tracing_mode="fake")(*inputs)
        except Exception as error:  # whatever an operator without a rule for vmap raises
            text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ImpureLoss(f"torch.func.vmap can't compute it: {type(error).__name__}: {text}") from error
        clean_up(stacked)
        return stacked

    def _one(self, *inputs: torch.Tensor) -> Tensors:
        """Compute what one member computes."""
        found = self._single(*inputs)
        values, columns, column = found[-1], [], 0
        for weight in self._weights:
            columns.append(values[column : column + 1])
            if weight is None:
                columns.append(values[column + 1 : column + 2])
            else:
                columns.append(values.new_full((1,), weight))
            column += 2 if weight is None else 1
        return [*found[:-1], torch.cat(columns)]
