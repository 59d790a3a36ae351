"""Finds out by trying which sizes of inputs and outputs follow from a model's settings, and which go together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from torch import nn

from commands.scaffold.constructor import Field
from commands.scaffold.probe import Fit, Input, try_inputs

_TOKENS = -1  # stands for "how many whole numbers", where an axis stands otherwise
_OUTPUT = -1  # stands for the output, where an input's number stands otherwise
Slot = tuple[int, int]  # an input's number and an axis of it
Try = Callable[[Mapping[str, Any], Sequence[Slot], int], Fit | None]


@dataclass(frozen=True)
class Sizes:
    """Where the sizes in shapes come from.

    Attributes:
        names: name of a setting (`dataset_dim`) or of a constant (`_LENGTH`), by slot.
        constants: values of the constants by name, in the order of the inputs.
    """

    names: Mapping[Slot, str]
    constants: Mapping[str, int]

    def of(self, place: int, axis: int, config: str = "config") -> str:
        """Return the text of an input's size: `config.dataset_dim` or `_LENGTH`.

        Args:
            place: number of the input, from 0.
            axis: axis of a sample of the input, from 0.
            config: text that the config is named by in the code.
        """
        name = self.names[place, axis]
        return name if name in self.constants else f"{config}.{name}"

    def tokens(self, place: int) -> str:
        """Return the text of how many whole numbers an input may hold."""
        return self.of(place, _TOKENS)

    def output(self, axis: int, config: str = "config") -> str:
        """Return the text of an output's size.

        Args:
            axis: axis of a sample of the output, from 0.
            config: text that the config is named by in the code.
        """
        return self.of(_OUTPUT, axis, config)

    def doc(self, place: int, axis: int) -> str:
        """Return an input's size as docstrings show it: `dataset_dim` or `length`.

        Args:
            place: number of the input, from 0.
            axis: axis of a sample of the input, from 0.
        """
        return self.names[place, axis].removeprefix("_").lower()

    def doc_tokens(self, place: int) -> str:
        """Likewise, how many whole numbers an input may hold."""
        return self.doc(place, _TOKENS)

    def doc_output(self, axis: int) -> str:
        """Likewise, an output's size."""
        return self.doc(_OUTPUT, axis)

    def names_of_output(self, axis: int) -> str:
        """Return the name of an output's size, which an input of the same size shares."""
        return self.names[_OUTPUT, axis]

    def inputs_of(self, axis: int) -> list[int]:
        """Return the numbers of the inputs whose first size is that of the output's axis."""
        name = self.names[_OUTPUT, axis]
        firsts = [place for place, other in self.names if place != _OUTPUT and other == 0]
        return [place for place in firsts if self.names[place, 0] == name]


def trace_sizes(build: Callable[[Mapping[str, Any]], nn.Module], fields: Sequence[Field], fit: Fit, task: str) -> Sizes:
    """Build the model with other settings, give it other sizes, and see what goes together.

    Args:
        build: function that builds the model with changed values of settings.
        fields: settings of the model.
        fit: inputs and output of the model.
        task: kind of task that the output must suit: autoencoder, ranking, transformer or classification.
    """
    known = dict(_slots(fit))

    def attempt(changes: Mapping[str, Any], slots: Sequence[Slot], size: int) -> Fit | None:
        found = try_inputs(lambda: build(changes), _resized(fit.inputs, slots, size), task)
        return found if isinstance(found, Fit) and len(found.output) == len(fit.output) else None

    names = _settings(known, fields, fit, attempt)
    groups = _groups({slot: size for slot, size in known.items() if slot not in names}, fit, attempt)
    constants: dict[str, int] = {}
    for group in groups:
        name = _constant(group, fit, task, constants)
        constants[name] = known[group[0]]
        names |= dict.fromkeys(group, name)
    return Sizes({slot: names[slot] for slot in known}, constants)


def _slots(fit: Fit) -> Iterator[tuple[Slot, int]]:
    for place, each in enumerate(fit.inputs):
        yield from (((place, axis), size) for axis, size in enumerate(each.shape))
        if each.tokens is not None:
            yield (place, _TOKENS), each.tokens
    yield from (((_OUTPUT, axis), size) for axis, size in enumerate(fit.output))


def _resized(inputs: Sequence[Input], slots: Sequence[Slot], size: int) -> tuple[Input, ...]:
    changed = list(inputs)
    for place, axis in slots:
        each = changed[place]
        shape = tuple(size if index == axis else old for index, old in enumerate(each.shape))
        changed[place] = replace(each, shape=shape, tokens=size if axis == _TOKENS else each.tokens)
    return tuple(changed)


def _settings(known: Mapping[Slot, int], fields: Sequence[Field], fit: Fit, attempt: Try) -> dict[Slot, str]:
    """Find sizes that must change with a setting, or that do."""
    names: dict[Slot, str] = {}
    for field in (field for field in fields if type(field.value) is int and field.value > 0):
        equal = [slot for slot, size in known.items() if size == field.value and slot not in names]
        inputs = [slot for slot in equal if slot[0] != _OUTPUT]
        for changed in {2 * field.value, field.value // 2} - {0} if equal else ():  # a smaller one for whole numbers
            for slots in _subsets(inputs):
                found = attempt({field.name: changed}, slots, changed)
                if found is not None:
                    grown = [slot for slot in equal if slot[0] == _OUTPUT and found.output[slot[1]] == changed]
                    names |= dict.fromkeys([*slots, *grown], field.name)
                    break
    return names


def _groups(free: Mapping[Slot, int], fit: Fit, attempt: Try) -> list[list[Slot]]:
    """Put sizes that no setting tells into groups that can only change together."""
    groups: list[list[Slot]] = []
    for slot, size in free.items():
        if any(slot in group for group in groups):
            continue
        taken = [each for group in groups for each in group]
        others = [each for each in free if each not in (slot, *taken) and each[0] != _OUTPUT and free[each] == size]
        outputs = [each for each in free if each not in (slot, *taken) and each[0] == _OUTPUT and free[each] == size]
        group = [slot]
        for partners in _subsets(others) if slot[0] != _OUTPUT and slot[1] != _TOKENS else ():
            found = attempt({}, [slot, *partners], size + 1)
            if found is not None:
                group += [*partners, *(each for each in outputs if found.output[each[1]] == size + 1)]
                break
        groups.append(group)
    return groups


def _subsets(slots: Sequence[Slot]) -> Iterator[tuple[Slot, ...]]:
    return (chosen for count in range(min(len(slots), 4) + 1) for chosen in combinations(slots, count))


def _constant(group: Sequence[Slot], fit: Fit, task: str, taken: Mapping[str, int]) -> str:
    """Name the constant of a group."""
    place, axis = group[0]
    if any(slot[0] == _OUTPUT for slot in group) and task in ("classification", "ranking"):
        name = "_CLASSES" if task == "classification" else "_ITEMS"
    elif place == _OUTPUT:
        name = "_OUTPUT_WIDTH"
    elif axis == _TOKENS:
        name = "_VOCABULARY"
    else:
        count = len(fit.inputs[place].shape)
        last = {1: ["WIDTH"], 2: ["LENGTH", "WIDTH"], 3: ["CHANNELS", "HEIGHT", "WIDTH"]}
        words = last.get(count, ["CHANNELS", *(f"SIZE_{index}" for index in range(1, count))])
        words = ["LENGTH"] if count == 1 and (fit.inputs[place].tokens or fit.inputs[place].mask is not None) else words
        name = f"_{words[axis]}"
    return name if name not in taken or place == _OUTPUT else f"_{fit.inputs[place].name.upper()}{name}"
