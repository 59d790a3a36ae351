"""A trainer's loss as a program: the tensor operations of its hook, recorded once, to be compiled.

The hook runs one time on tensors without values, and every operation it asks for is written down (`make_fx`), backward
included. So any Python may be in a hook, and all of it is gone from the program: what it reads besides tensors is taken
as a constant. Hence `LossProgram.difference`, which looks whether the hook would ask for the same operations again, and
`ImpureLoss`, which says why a hook can't be a program.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data.batches import tensors_in, with_tensors
from train.seeding import preserved_random_states

_MUST_NOT_CHANGE = ("_meter", "_batch_samples", "_loss_count")  # the base class's own, that may


class ImpureLoss(Exception):
    """A hook that is no pure function of parameters, buffers and batch; the text says what is in the way."""


class _Collector:
    """Stands in for the trainer's meter while the hook runs."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, torch.Tensor, int | torch.Tensor]] = []

    def add(self, name: str, value: Any, samples: int | torch.Tensor) -> None:
        if not isinstance(value, torch.Tensor):
            raise ImpureLoss(f"metric '{name}' is a Python number, which the device can't compute anew at each step")
        self.entries.append((name, value.detach(), samples))


class LossProgram:
    """What a trainer's `_forward_batch` computes for batches of one shape, and the gradients of it.

    Args:
        trainer: a BaseTrainer with its model in training or evaluation mode, which the program keeps.
        batch: an example; its tensors' shapes are those of all batches to come.
        parameters: those whose gradients are wanted; none for an evaluation.

    Attributes:
        graph: maps (parameters, buffers, the batch's tensors, held tensors), each flat, to (gradients, new buffers,
            values): the gradients of the parameters in `trained`, and a float64 vector for the meter.
        detached: the parameters as plain tensors that share their memory.
        held: the tensors that the hook finds by itself, such as class weights or a frozen network's.

    Raises:
        ImpureLoss: the hook does what can't be recorded.
    """

    def __init__(self, trainer: Any, batch: Any, parameters: Sequence[torch.Tensor]) -> None:
        self.trainer, self.training = trainer, trainer.model.training
        self.parameters = list(parameters)
        self._places = list(_places(trainer))
        self.buffers = _buffers(self._places)
        self.shapes = shapes_of(batch)
        self.entries: list[tuple[str, int | None]] = []  # of `values`: name, its weight where that is a constant
        self.trained: list[int] = []  # which of the parameters have a gradient
        self.random = True
        with preserved_random_states():
            foreign = _foreign_random_states()
            self._print = self._fingerprint(batch)
            if _foreign_random_states() != foreign:
                raise ImpureLoss("the hook draws random numbers from Python's random or from numpy, not from torch")
        before = _shallow_state(trainer, self._places)
        self.graph, self.held = self._record(batch)
        self.detached = [parameter.detach() for parameter in self.parameters]
        changed = before ^ _shallow_state(trainer, self._places)
        if changed:
            raise ImpureLoss(f"the hook changes {sorted(name for name, *_ in changed)[0]}")
        self.random = any(
            torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in self.graph.graph.nodes
        )

    def difference(self, batch: Any) -> str | None:
        """Say how the hook now differs from the program, None if it doesn't.

        Args:
            batch: one of the recorded shape.
        """
        now = self._fingerprint(batch)
        if now == self._print:
            return None
        for old, new in itertools.zip_longest(self._print, now):
            if old != new:
                return f"{_shown(new)} where it was {_shown(old)}"
        return None

    def fits(self, batch: Any) -> bool:
        """Say whether a batch has the shapes that the program is made for."""
        return shapes_of(batch) == self.shapes

    def inputs(self, batch: Any) -> list[torch.Tensor]:
        """Return the arguments of `graph`."""
        return [*self.detached, *self.buffers, *tensors_in(batch), *self.held]

    def loss_count(self, values: torch.Tensor) -> float | torch.Tensor:
        """Return over how many samples the loss is a mean (no synchronisation)."""
        column = 0
        for name, weight in self.entries:
            if name == "loss":
                return values[column + 1] if weight is None else weight
            column += 1 if weight is not None else 2
        return 1

    def meter(self, values: torch.Tensor, calls: int) -> None:
        """Give the trainer's meter what `calls` runs of the program have added up.

        Args:
            values: the sum of their `values`, float64.
            calls: how many.
        """
        column = 0
        for name, weight in self.entries:
            total, column = values[column], column + 1
            if weight is None:
                self.trainer._meter.add_sum(name, total, values[column])
                column += 1
            else:
                self.trainer._meter.add_sum(name, total, weight * calls)

    @property
    def width(self) -> int:
        """The length of `values`."""
        return sum(1 if weight is not None else 2 for _, weight in self.entries)

    def _record(self, batch: Any) -> tuple[torch.fx.GraphModule, list[torch.Tensor]]:
        from torch.fx.experimental.proxy_tensor import make_fx

        def run(parameters: list[Any], buffers: list[Any], leaves: list[Any]) -> tuple[Any, ...]:
            leaves_of = dict(zip(map(id, self.parameters), parameters, strict=True))
            inputs = {key: value.detach().requires_grad_() for key, value in leaves_of.items()}
            copies = [buffer.clone() for buffer in buffers]
            replaced = inputs | dict(zip(map(id, self.buffers), copies, strict=True))
            collector = _Collector()
            with replaced_tensors(self._places, replaced), metered(self.trainer, collector):
                loss = self.trainer._forward_batch(with_tensors(batch, leaves))
            gradients = self._gradients(loss, list(inputs.values()))
            return gradients, copies, self._values(collector, loss.device)

        graph = torch.no_grad() if not self.training else torch.enable_grad()
        flat = ([p.detach() for p in self.parameters], list(self.buffers), list(tensors_in(batch)))
        try:
            with graph, preserved_random_states(), torch.autocast(self.trainer.device.type, enabled=False):
                recorded = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(*flat)
        except ImpureLoss:
            raise
        except Exception as error:  # whatever the hook does with tensors that have no values
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
        self.entries, columns = [], []
        for name, value, samples in collector.entries:
            mean = (value if value.dim() == 0 else value.float().mean()).double()
            known = not isinstance(samples, torch.Tensor)
            self.entries.append((name, samples if known else None))
            columns += [mean * samples] if known else [mean * samples.double(), samples.double()]
        return torch.stack([column.to(device) for column in columns])

    def _fingerprint(self, batch: Any) -> list[Any]:
        """Run the hook and note each operation, its numbers and where its tensors come from."""
        recorder = _Recorder([*self.parameters, *self.buffers, *tensors_in(batch)])
        kept = [buffer.clone() for buffer in self.buffers]
        state = torch.get_rng_state() if self.random else None
        with metered(self.trainer, _Collector()), torch.set_grad_enabled(self.training), recorder:
            self.trainer._forward_batch(batch)
        if state is not None:
            torch.set_rng_state(state)
        for buffer, value in zip(self.buffers, kept, strict=True):
            buffer.copy_(value)
        return recorder.lines


class _Recorder(TorchDispatchMode):
    """Writes down operations: the name, numbers, and for each tensor whether it came in, was computed or was there."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.lines: list[Any] = []
        self._names: dict[int, Any] = {id(tensor): number for number, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # an id is only good while its tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default):
            values = tuple(args[0].flatten().tolist()) if args[0].device.type == "cpu" else None
            line = (func, (tuple(args[0].shape), values), ())  # torch.tensor(...): new each time, so its values count
        else:
            line = (func, self._shown(args), self._shown(tuple(kwargs.items())))
        result = func(*args, **kwargs)
        for number, tensor in enumerate(tensors_in(result)):
            if id(tensor) not in self._names:
                self._names[id(tensor)] = (len(self.lines), number)
                self._alive.append(tensor)
        self.lines.append(line)
        return result

    def _shown(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in self._names:
                self._names[id(value)] = ("held", id(value))
                self._alive.append(value)
            return ("tensor", self._names[id(value)], tuple(value.shape))
        if isinstance(value, list | tuple):
            return tuple(self._shown(item) for item in value)
        return value if isinstance(value, int | float | str | bool | None | torch.dtype | torch.device) else str(value)


def _foreign_random_states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]


def shapes_of(batch: Any) -> tuple[Any, ...]:
    """Return the shapes and dtypes of a batch's tensors: what a program is made for."""
    return tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors_in(batch))


@contextmanager
def metered(trainer: Any, meter: Any) -> Iterator[None]:
    """Let another meter take a trainer's measurements."""
    before, trainer._meter = trainer._meter, meter
    try:
        yield
    finally:
        trainer._meter = before


@contextmanager
def replaced_tensors(places: Sequence[dict[str, Any]], replacements: dict[int, torch.Tensor]) -> Iterator[None]:
    """Put other tensors where parameters and buffers are.

    Args:
        places: the dicts that hold them.
        replacements: by the id of the tensor to replace.
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


def _places(trainer: Any) -> Iterator[dict[str, Any]]:
    """Yield the dicts that hold a trainer's tensors: its own and those of every module it has."""
    yield trainer.__dict__
    seen: set[int] = set()
    roots = [value for value in trainer.__dict__.values() if isinstance(value, torch.nn.Module)]
    for module in itertools.chain.from_iterable(root.modules() for root in roots):
        if id(module) not in seen:
            seen.add(id(module))
            yield module._parameters
            yield module._buffers
            yield module.__dict__


def _buffers(places: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
    found = {}
    for place in places:
        for value in place.get("_buffers", {}).values() if "_buffers" in place else ():
            if value is not None:
                found[id(value)] = value
    return list(found.values())


def _shallow_state(trainer: Any, places: Sequence[dict[str, Any]]) -> set[tuple[str, int, int]]:
    """Return what an assignment or an `append` in the hook would change."""
    state = set()
    for number, place in enumerate(places):
        owner = "self" if number == 0 else "the model's"
        for name, value in place.items():
            if name not in _MUST_NOT_CHANGE:
                length = len(value) if isinstance(value, list | dict | set) else 0
                state.add((f"{owner}.{name}" if number == 0 else f"{owner} {name}", id(value), length))
    return state


def _lift_constants(recorded: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[torch.Tensor]]:
    """Make inputs of the tensors that the hook found by itself, so that a change of their values is seen."""
    graph, held = recorded.graph, []
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
            raise ImpureLoss(f"the hook changes a tensor that it keeps ({user.target})")


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if "DataDependent" in name or "GuardOnDataDependent" in name:
        return f"the hook needs the value of a tensor while it runs (.item(), float(), if): {_first_line(error)}"
    return f"{name}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _shown(line: Any) -> str:
    if line is None:
        return "nothing more"
    numbers = [str(item) for item in (*line[1], *line[2]) if not (isinstance(item, tuple) and "tensor" in item)]
    return f"{line[0]}({', '.join(numbers)})"
