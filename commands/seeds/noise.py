"""The random numbers of a recorded loss function, drawn before the step: each member's from its own generator.

A recorded loss function (`LossProgram.graph`) draws, for dropout and the like, where its operators stand. Those whose
numbers don't depend on what was computed are inputs here. They are drawn in the order of the operators, into tensors of
the same shape and strides, by the same kernels: the numbers are those that the member's own single run draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from train.compiled.program import ImpureLoss

aten = torch.ops.aten
# What fills an empty tensor as the operator would, by the operator: (tensor, its arguments, generator).
_FILLS: dict[Any, Callable[..., Any]] = {
    aten.bernoulli_.float: lambda out, args, generator: out.bernoulli_(*args[1:], generator=generator),
    aten.bernoulli.p: lambda out, args, generator: out.bernoulli_(*args[1:], generator=generator),
    aten.uniform_.default: lambda out, args, generator: out.uniform_(*args[1:], generator=generator),
    aten.normal_.default: lambda out, args, generator: out.normal_(*args[1:], generator=generator),
    aten.rand_like.default: lambda out, args, generator: out.uniform_(generator=generator),
    aten.randn_like.default: lambda out, args, generator: out.normal_(generator=generator),
    aten.rand.default: lambda out, args, generator: out.uniform_(generator=generator),
    aten.randn.default: lambda out, args, generator: out.normal_(generator=generator),
}


@dataclass(frozen=True)
class Noise:
    """Numbers that a step draws.

    Attributes:
        fill: function that draws the numbers into a tensor.
        args: arguments of the operator that drew the numbers.
        shape, stride, dtype: shape, stride and dtype of the tensor that holds the numbers.
    """

    fill: Callable[..., Any]
    args: tuple[Any, ...]
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def draw(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Draw for each member; returns (N, *shape).

        Args:
            generators: random generator of each of the N members.
        """
        span = max(1, 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)))
        out = torch.empty_strided((len(generators), *self.shape), (span, *self.stride), dtype=self.dtype)
        for row, generator in zip(out.unbind(), generators, strict=True):
            self.fill(row, self.args, generator)
        return out


def take_out_noise(graph: torch.fx.GraphModule) -> list[Noise]:
    """Make inputs, behind the others, of the random numbers in a recorded graph.

    Args:
        graph: recorded graph; it is changed.

    Returns:
        The numbers to be drawn for the new inputs, in order.

    Raises:
        ImpureLoss: an operator draws numbers that depend on what was computed, or in a way that isn't known here.
    """
    nodes, found = graph.graph.nodes, []
    last = [node for node in nodes if node.op == "placeholder"][-1]
    for node in list(nodes):
        if not _draws(node):
            continue
        fill = _FILLS.get(node.target)
        if fill is None or any(isinstance(arg, torch.fx.Node) for arg in node.args[1:]):
            raise ImpureLoss(f"it draws random numbers by {node.target}, which is not known to draw the same ones here")
        in_place = node.target._schema.is_mutable
        if in_place and any(user is not node for user in node.args[0].users):
            raise ImpureLoss(f"it draws random numbers into a tensor that has other uses ({node.target})")
        value = node.meta["val"]
        found.append(Noise(fill, tuple(node.args), tuple(value.shape), tuple(value.stride()), value.dtype))
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"noise_{len(found) - 1}")
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return found


def _draws(node: torch.fx.Node) -> bool:
    """Say whether an operator draws random numbers; attention only does where it drops something out."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    return _arguments(node).get("dropout_p", 1.0) != 0.0


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Return an operator's arguments by name, with the defaults of those that aren't given."""
    if not isinstance(node.target, torch._ops.OpOverload):
        raise TypeError(f"{node.target} is no operator of torch")
    schema = node.target._schema.arguments
    given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    given |= {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    return given | node.kwargs
