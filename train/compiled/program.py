"""A trainer's loss as a program: the tensor operations of its loss function, recorded once, to be compiled.

The loss function runs one time on tensors without values, and every operation it asks for is written down (`make_fx`),
backward included. So any Python may be in a loss function, and all of it is gone from the program: what it reads
besides tensors is taken as a constant. Hence `LossProgram.difference`, which looks whether the loss function would ask
for the same operations again, and `ImpureLoss`, which says why a loss function can't be a program.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from data.batches import tensors_in, with_tensors
from train.context import RunContext
from train.loop.meters import EpochMeter
from train.seeding import preserved_random_states, random_states, set_random_states
from train.side_effects import Recorder, SideEffectSnapshot, first_difference, namespaces_of, tensors_of


class ImpureLoss(Exception):
    """A loss function that is no pure function of parameters, buffers and batch; the text says what is in the way."""


class _Collector(EpochMeter):
    """Stands in for the run's meter while the loss function is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[str, torch.Tensor, int | torch.Tensor]] = []

    def add(self, name: str, value: torch.Tensor | float, samples: int | torch.Tensor) -> None:
        """Note a measurement; only the device can compute it anew at each step."""
        if not isinstance(value, torch.Tensor):
            raise ImpureLoss(f"metric '{name}' is a Python number, which the device can't compute anew at each step")
        self.entries.append((name, value.detach(), samples))


class LossProgram:
    """What a trainer's `_forward_batch` computes for batches of one shape, and the gradients of it.

    Args:
        run: run whose model is in the mode, training or evaluation, that the program keeps.
        batch: example of a batch; all batches to come have tensors of these shapes.
        parameters: parameters whose gradients are wanted; none for an evaluation.

    Attributes:
        graph: graph that maps (parameters, buffers, the batch's tensors, held tensors), each flat, to (gradients, new
            buffers, values): the gradients of the parameters in `trained`, and a float64 vector for the meter.
        detached: parameters as plain tensors that share the parameters' memory.
        held: tensors that the loss function finds by itself, such as class weights or a frozen network's.

    Raises:
        ImpureLoss: the loss function does what can't be recorded.
    """

    def __init__(self, run: RunContext, batch: Any, parameters: Sequence[torch.Tensor]) -> None:
        self.run, self.training = run, run.model.training
        self.parameters = list(parameters)
        self._places = list(namespaces_of(run))
        self.buffers = tensors_of(self._places, "_buffers")
        self.shapes = shapes_of(batch)
        self.entries: list[tuple[str, int | None]] = []  # of `values`: name, its weight where that is a constant
        self.trained: list[int] = []  # which of the parameters have a gradient
        self.random = True
        side_effects = SideEffectSnapshot(self._places)
        try:
            with preserved_random_states():
                self._print = self._fingerprint(batch)
                self._refuse(side_effects)
                self.graph, self.held = self._record(batch)
                self._refuse(side_effects)
        finally:
            side_effects.restore()
        self.detached = [parameter.detach() for parameter in self.parameters]
        self.random = any(
            torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in self.graph.graph.nodes
        )

    def difference(self, batch: Any) -> str | None:
        """Say how the loss function now differs from the program, None if it doesn't.

        Args:
            batch: batch of the recorded shape.
        """
        if self._hooked():
            return "a parameter has a hook on its gradient, which the program doesn't call"
        return first_difference(self._print, self._fingerprint(batch))

    def fits(self, batch: Any) -> bool:
        """Say whether a batch has the shapes that the program is made for."""
        return shapes_of(batch) == self.shapes

    def inputs(self, batch: Any) -> list[torch.Tensor]:
        """Return the arguments of `graph`."""
        return [*self.detached, *self.buffers, *tensors_in(batch), *self.held]

    def loss_count(self, values: torch.Tensor) -> float | torch.Tensor:
        """Return over how many samples the loss is a mean (no synchronisation).

        Args:
            values: `values` of one run of the program.
        """
        column = 0
        for name, weight in self.entries:
            if name == "loss":
                return values[column + 1] if weight is None else weight
            column += 1 if weight is not None else 2
        return 1

    def loss_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the loss times its samples (no synchronisation).

        Args:
            values: `values` of one run of the program, or the sum over several.
        """
        column = 0
        for name, weight in self.entries:
            if name == "loss":
                break
            column += 1 if weight is not None else 2
        return values[column]

    def meter(self, values: torch.Tensor, calls: int, kept: bool = False) -> None:
        """Give the trainer's meter what runs of the program have measured.

        Args:
            values: sum of the `values` of all runs of the program that are counted, float64.
            calls: number of runs of the program that are counted.
            kept: whether `values` replaces what was given before, the sum of an epoch so far; else it is added.
        """
        column = 0
        give = self.run.meter.keep_sum if kept else self.run.meter.add_sum
        for name, weight in self.entries:
            total, column = values[column], column + 1
            if weight is None:
                give(name, total, values[column])
                column += 1
            else:
                give(name, total, weight * calls)

    def kept_values(self) -> torch.Tensor:
        """Return the sum that the trainer's meter was given to keep: a resumed epoch goes on with it."""
        columns: list[float] = []
        for name, weight in self.entries:
            total, samples = self.run.meter.kept(name)
            columns += [total] if weight is not None else [total, samples]
        return torch.tensor(columns, dtype=torch.float64)

    @property
    def width(self) -> int:
        """The length of `values`."""
        return sum(1 if weight is not None else 2 for _, weight in self.entries)

    def _refuse(self, side_effects: SideEffectSnapshot) -> None:
        if self._hooked():
            raise ImpureLoss("a parameter has a hook on its gradient, which a program doesn't call")
        change = side_effects.change()
        if change:
            raise ImpureLoss(f"the loss function {change}")

    def _hooked(self) -> bool:
        return any(p._backward_hooks or p._post_accumulate_grad_hooks for p in self.parameters)

    def _record(self, batch: Any) -> tuple[torch.fx.GraphModule, list[torch.Tensor]]:
        from torch.fx.experimental.proxy_tensor import make_fx

        def run(parameters: list[Any], buffers: list[Any], leaves: list[Any]) -> tuple[Any, ...]:
            leaves_of = dict(zip(map(id, self.parameters), parameters, strict=True))
            inputs = {key: value.detach().requires_grad_() for key, value in leaves_of.items()}
            copies = [buffer.clone() for buffer in buffers]
            replaced = inputs | dict(zip(map(id, self.buffers), copies, strict=True))
            collector = _Collector()
            with replaced_tensors(self._places, replaced), self.run.measuring_with(collector):
                loss = self.run.loss_function(with_tensors(batch, leaves))
            gradients = self._gradients(loss, list(inputs.values()))
            return gradients, copies, self._values(collector, loss.device)

        graph = torch.no_grad() if not self.training else torch.enable_grad()
        flat = ([p.detach() for p in self.parameters], list(self.buffers), list(tensors_in(batch)))
        try:
            with graph, preserved_random_states(), torch.autocast(self.run.device.type, enabled=False):
                recorded = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(*flat)
        except ImpureLoss:
            raise
        except Exception as error:  # whatever the loss function does with tensors that have no values
            raise ImpureLoss(_reason(error)) from error
        finally:
            torch.clear_autocast_cache()
        return _lift_constants(recorded)

    def _gradients(self, loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if not inputs:
            return []
        found = torch.autograd.grad(loss, inputs, allow_unused=True)
        self.trained = [number for number, gradient in enumerate(found) if gradient is not None]
        return [gradient for gradient in found if gradient is not None]

    def _values(self, collector: _Collector, device: torch.device) -> torch.Tensor:
        self.entries = []
        columns: list[torch.Tensor] = []
        for name, value, samples in collector.entries:
            mean = (value if value.dim() == 0 else value.float().mean()).double()
            if isinstance(samples, torch.Tensor):
                self.entries.append((name, None))
                columns += [mean * samples.double(), samples.double()]
            else:
                self.entries.append((name, samples))
                columns.append(mean * samples)
        return torch.stack([column.to(device) for column in columns])

    def _fingerprint(self, batch: Any) -> list[Any]:
        """Run the loss function and note each operation, its numbers and where its tensors come from."""
        recorder = Recorder([*self.parameters, *self.buffers, *tensors_in(batch)])
        kept = [buffer.clone() for buffer in self.buffers]
        on_cpu = self.run.device.type == "cpu"
        cpu_state = torch.get_rng_state() if self.random and on_cpu else None
        states = random_states() if self.random and not on_cpu else None
        with self.run.measuring_with(_Collector()), torch.set_grad_enabled(self.training), recorder:
            self.run.loss_function(batch)
        if cpu_state is not None:
            torch.set_rng_state(cpu_state)
        if states is not None:
            set_random_states(states)
        for buffer, value in zip(self.buffers, kept, strict=True):
            buffer.copy_(value)
        return recorder.lines


def shapes_of(batch: Any) -> tuple[Any, ...]:
    """Return the shapes and dtypes of a batch's tensors: what a program is made for."""
    return tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors_in(batch))


@contextmanager
def replaced_tensors(places: Sequence[dict[str, Any]], replacements: dict[int, torch.Tensor]) -> Iterator[None]:
    """Put other tensors where parameters and buffers are.

    Args:
        places: dicts that hold the parameters and buffers.
        replacements: new tensor by the id of the tensor to replace.
    """
    undo = []
    try:
        for place in places:
            for name, value in list(place.items()):
                if id(value) in replacements:
                    undo.append((place, name, value))
                    place[name] = replacements[id(value)]
                elif name == "_flat_weights":  # recurrent layers keep a list of theirs
                    undo.append((place, name, value))
                    place[name] = [replacements.get(id(weight), weight) for weight in value]
        yield
    finally:
        for place, name, value in undo:
            place[name] = value


def _lift_constants(recorded: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[torch.Tensor]]:
    """Make inputs of the tensors that the loss function found by itself, so that a change of their values is seen."""
    graph = recorded.graph
    held: list[torch.Tensor] = []
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    seen: dict[str, torch.fx.Node] = {}
    for node in list(graph.nodes):
        value = getattr(recorded, node.target, None) if node.op == "get_attr" else None
        if not isinstance(value, torch.Tensor):
            continue
        if node.target not in seen:
            with graph.inserting_after(last):
                last = seen[node.target] = graph.placeholder(f"held_{len(held)}")
            held.append(value.detach())
        _refuse_changes(node)
        node.replace_all_uses_with(seen[node.target])
        graph.erase_node(node)
    graph.set_codegen(torch.fx.graph.CodeGen())
    recorded.recompile()
    return recorded, held


def _refuse_changes(node: torch.fx.Node) -> None:
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is not None and schema.is_mutable and user.args and user.args[0] is node:
            raise ImpureLoss(f"the loss function changes a tensor that it keeps ({user.target})")


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if "DataDependent" in name or "GuardOnDataDependent" in name:
        needs = "the loss function needs the value of a tensor while it runs (.item(), float(), if)"
        return f"{needs}: {_first_line(error)}"
    return f"{name}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
