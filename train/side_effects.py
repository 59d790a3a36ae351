"""What a loss function does besides computing.

Attributes it sets, lists it appends to, tensors it changes, generators it draws from. All of that would be lost, or
done once instead of at each step, if the loss function became a program.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from data.batches import tensors_in
from train.checkpointing.generators import Generator, generator_state, is_generator, with_state
from train.checkpointing.plain_values import is_equal
from train.context import RunContext
from train.seeding import numpy_state

_MAY_CHANGE = ("_flat_weights", "_flat_weight_refs")
_CLONED = 2**20  # elements of a tensor up to which a change is undone; of a larger one it is only noticed
_CONTAINERS = 1000  # lists and dicts that are looked into at most


def namespaces_of(run: RunContext) -> Iterator[dict[str, Any]]:
    """Yield the dicts that hold a trainer's tensors: its own and those of every module it has.

    A lazy layer that doesn't know its size yet is left out: its first pass makes another layer of it, for good.
    """
    yield run.attributes
    seen: set[int] = set()
    roots = [value for value in run.attributes.values() if isinstance(value, torch.nn.Module)]
    roots += run.other_modules().values()
    for module in itertools.chain.from_iterable(root.modules() for root in roots):
        if id(module) not in seen and not is_unsized(module):
            seen.add(id(module))
            yield module._parameters
            yield module._buffers
            yield module.__dict__


def is_unsized(module: torch.nn.Module) -> bool:
    """Say whether a module is a lazy layer whose size no pass has shown yet."""
    return isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()


def tensors_of(places: Sequence[dict[str, Any]], kind: str) -> list[torch.Tensor]:
    """Return the parameters or buffers of all modules, each once.

    Args:
        places: dicts that `namespaces_of` yields.
        kind: `_parameters` or `_buffers`.
    """
    found = [tensor for place in places for tensor in place.get(kind, {}).values()]
    usable = [tensor for tensor in found if tensor is not None and not is_lazy(tensor)]
    return list({id(tensor): tensor for tensor in usable}.values())


class SideEffectSnapshot:
    """What a loss function can change around it, as it is now.

    Args:
        places: dicts that `namespaces_of` yields of the run whose loss function is watched.
    """

    def __init__(self, places: Sequence[dict[str, Any]]) -> None:
        known = {id(tensor) for place in places[1:] for tensor in place.values() if isinstance(tensor, torch.Tensor)}
        self._entries = [
            ("self" if number == 0 else "the model's", place, dict(place)) for number, place in enumerate(places)
        ]
        self._containers: list[tuple[str, Any, Any]] = []
        self._tensors: list[tuple[str, torch.Tensor, int, torch.Tensor | None]] = []
        self._generators: list[tuple[str, Generator, dict[str, Any]]] = []
        self._random = _foreign_random_states()
        for owner, place, _ in self._entries:
            for name, value in place.items():
                if id(value) not in known and name not in _MAY_CHANGE:
                    self._note(f"{owner}.{name}" if owner == "self" else f"{owner} {name}", value)

    def _note(self, label: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            kept = value.detach().clone() if value.numel() <= _CLONED else None
            self._tensors.append((label, value, value._version, kept))
        elif is_generator(value):
            self._generators.append((label, value, generator_state(value)))
        elif isinstance(value, list | dict | set) and len(self._containers) < _CONTAINERS:
            self._containers.append((label, value, value.copy()))
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, list | dict | set) or is_generator(item):
                    self._note(label, item)

    def change(self) -> str | None:
        """Say what is no longer as it was, None if nothing changed."""
        if _foreign_random_states() != self._random:
            return "draws random numbers from Python's random or from numpy, not from torch"
        for label, generator, state in self._generators:
            if not is_equal(generator_state(generator), state):
                return f"draws from a generator of its own ({label}), not from torch's"
        for owner, place, before in self._entries:
            for name in [*before, *place]:
                if name not in _MAY_CHANGE and place.get(name, _MISSING) is not before.get(name, _MISSING):
                    return f"changes {owner}.{name}" if owner == "self" else f"changes {owner} {name}"
        for label, container, before in self._containers:
            if not _same_items(container, before):
                return f"changes {label}"
        for label, tensor, version, _ in self._tensors:
            if tensor._version != version:
                return f"changes a tensor that it keeps ({label})"
        return None

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what changed."""
        for _, place, before in self._entries:
            for name in [name for name in place if name not in before]:
                del place[name]
            for name, value in before.items():
                if place.get(name, _MISSING) is not value:
                    place[name] = value
        for _, container, before in self._containers:
            if not _same_items(container, before):
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)
        for _, tensor, version, kept in self._tensors:
            if tensor._version != version and kept is not None:
                tensor.copy_(kept)
        for _, generator, state in self._generators:
            with_state(generator, state)


_MISSING = object()


def _same_items(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and other[key] is value for key, value in one.items())
    return one == other if isinstance(one, set) else all(a is b for a, b in zip(one, other, strict=True))


def _foreign_random_states() -> tuple[Any, ...]:
    kind, keys, position, *_ = numpy_state()
    return random.getstate(), kind, keys.tobytes(), position


_FRESH = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)
_PLAIN = (int, float, str, type(None), torch.dtype, torch.device)


class Recorder(TorchDispatchMode):
    """Writes down operations: the name, numbers, and for each tensor whether it came in, was computed or was there.

    Args:
        inputs: tensors that come in.

    Attributes:
        lines: a line for each operation; two runs that do the same have equal lines.
    """

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.lines: list[Any] = []
        self._names: dict[int, Any] = {id(tensor): number for number, tensor in enumerate(inputs)}
        self._alive: list[Any] = list(inputs)  # an id is only good while its tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FRESH:
            values = tuple(args[0].flatten().tolist()) if args[0].device.type == "cpu" else None
            line = (func, (tuple(args[0].shape), values), ())  # torch.tensor(...): new each time, so its values count
        else:
            line = (func, self._shown(args), self._shown(tuple(kwargs.items())))
        result = func(*args, **kwargs)
        for number, tensor in enumerate((result,) if isinstance(result, torch.Tensor) else tensors_in(result)):
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
        return value if isinstance(value, _PLAIN) else str(value)


def first_difference(old: Sequence[Any], new: Sequence[Any]) -> str | None:
    """Say where two lists of a recorder's lines begin to differ, None if they don't."""
    for before, now in itertools.zip_longest(old, new):
        if before != now and repr(before) != repr(now):  # nan is not equal to itself
            return f"{_shown(now)} where it was {_shown(before)}"
    return None


def _shown(line: Any) -> str:
    if line is None:
        return "nothing more"
    numbers = [str(item) for item in (*line[1], *line[2]) if not (isinstance(item, tuple) and "tensor" in item)]
    return f"{line[0]}({', '.join(numbers)})"
