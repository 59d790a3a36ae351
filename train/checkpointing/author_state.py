"""What a run changes in its author's own objects: found when the trainer is built, kept, and put back.

A trainer may hold anything. What has a state for a resumed run to go on from is one of these:

- an object with `state_dict` and `load_state_dict`: a second optimizer, a schedule, a scaler, a stateful loader;
- a module, with its parameters and buffers, which the run's list of stateful parts has by itself;
- a random generator of torch, numpy or Python;
- a value, which is plain data: a number that is annealed, a tensor that is a queue. It is kept once it has changed
  since the trainer was built: what follows from the settings is made anew from those that hold at the resume.

Values and generators are looked for in the attributes of the trainer, of modules, loaders, samplers and datasets, and
of an author's own objects among these, also in lists, tuples and dicts.
"""

import io
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from beautilog import logger
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from storage.plain_state import require_plain
from train.checkpointing.generators import generator_state, is_generator, with_state
from train.checkpointing.plain_values import (
    Seen,
    is_collection,
    is_scalar,
    is_too_large,
    is_value,
    on_device,
    plain_form,
    put_back,
)
from train.copies import copied
from train.error_location import is_library

# What a run has parts of its own for, or makes anew.
_FRAMEWORK = frozenset(
    {
        "callbacks", "device", "early_stopping", "history", "is_main_process", "model", "optimizer", "progress_bar",
        "record", "run_context", "run_folder", "scheduler", "trackers", "train_loader", "val_loader",
        "_config_callbacks", "_run_callbacks",
    }
)  # fmt: skip
_OF_EVERY_MODULE = frozenset({*vars(nn.Module()), "_flat_weights", "_flat_weight_refs"})
_OF_A_LOADER = frozenset({"_iterator", "_IterableDataset_len_called", "worker_init_fn", "draws", "stand_ins"})
_UNKEPT = (
    "which a checkpoint can't hold: a resumed run has it as __init__ makes it. The trainer's get_extra_state and "
    "set_extra_state can keep what matters of it (docs/reliability.md)"
)
_MODEL = "self.model"
_LISTED = 64  # parts of a list or dict among which objects with a state are looked for
_MOST_OWNERS = 1000  # objects of an author's that are looked into


@dataclass
class Owner:
    """An object, or a list or dict, whose attributes or items are looked at.

    Attributes:
        path: where it is, such as `train_loader.dataset`.
        items: its attributes, or its items, by name: the namespace itself, not a copy.
        ignored: names that are passed over.
        scalars_only: whether only public numbers and strings are looked at: those of a library's module.
        first: its values as they were when the trainer was built.
        others: what else it holds, as it was at the last survey.
    """

    path: str
    items: MutableMapping[Any, Any]
    ignored: frozenset[str] = frozenset()
    scalars_only: bool = False
    first: dict[Any, Seen] = field(default_factory=dict)
    others: dict[Any, object] = field(default_factory=dict)

    def entries(self) -> Iterator[tuple[Any, Any]]:
        """Yield names and what they stand for."""
        for name, value in list(self.items.items()):
            if name in self.ignored or (self.scalars_only and (name.startswith("_") or not is_scalar(value))):
                continue
            yield name, value

    def changed(self) -> Iterator[tuple[Any, Any]]:
        """Yield names and values, and generators, that are not what they were, and objects that others stand for."""
        first, others = self.first, self.others
        for name, value in self.entries():
            seen = first.get(name)
            if seen is not None:
                if not seen.is_same(value):
                    yield name, value
            elif others.get(name) is not value or value is None or is_generator(value):
                yield name, value


class _Listed(MutableMapping[Any, Any]):
    """A list's items by number."""

    def __init__(self, held: list[Any] | tuple[Any, ...]) -> None:
        self._held = held

    def __getitem__(self, number: Any) -> Any:
        return self._held[number]

    def __setitem__(self, number: Any, value: Any) -> None:
        if isinstance(self._held, list):
            self._held[number] = value

    def __delitem__(self, number: Any) -> None:
        raise TypeError

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._held)))

    def __len__(self) -> int:
        return len(self._held)


@dataclass
class Survey:
    """What was found.

    Attributes:
        modules: modules with their paths, outermost ones.
        objects: objects with `state_dict` and `load_state_dict`.
        owners: objects whose values are looked at.
        iterators: iterators and generator functions at work, whose place nobody can ask for.
        visited: all objects that were looked at.
        owned: identities of the parameters and buffers that the modules' own states have.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    iterators: dict[str, object] = field(default_factory=dict)
    visited: list[object] = field(default_factory=list)
    owned: set[int] = field(default_factory=set)


class _Surveyor:
    """Goes through an author's objects, each once.

    Args:
        known: objects that are passed over, by identity.
    """

    def __init__(self, known: Iterable[object]) -> None:
        self.found = Survey()
        self.found.visited.extend(known)  # an identity is only good while its object lives
        self._seen = {id(value) for value in self.found.visited}

    def look_at(self, path: str, value: Any, root: bool = False) -> None:
        """Look at an object and at what it holds.

        Args:
            path: where the object is.
            value: the object.
            root: whether its attributes are looked at whatever its class is.
        """
        if is_scalar(value) or isinstance(value, torch.Tensor) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self.found.visited.append(value)
        if isinstance(value, nn.Module):
            self._look_at_module(path, value)
        elif is_generator(value) or isinstance(value, type | types.FunctionType | types.ModuleType | io.IOBase):
            return
        elif isinstance(value, types.MethodType):
            self.look_at(f"{path}.__self__", value.__self__)
        elif is_collection(value):
            self._look_at_collection(path, value)
        elif isinstance(value, Iterator) and not is_stateful(value):
            self.found.iterators[path] = value
        elif is_stateful(value):
            self.found.objects[path] = value
        elif (root or _is_authors(type(value))) and hasattr(value, "__dict__"):  # type: ignore[arg-type]  # hashable
            self.look_into(Owner(path, vars(value), _OF_A_LOADER))

    def _look_at_module(self, path: str, value: nn.Module) -> None:
        self.found.modules[path] = value
        self.found.owned.update(map(id, value.state_dict(keep_vars=True).values()))
        for name, module in value.named_modules():
            if id(module) in self._seen and module is not value:
                continue
            self._seen.add(id(module))
            where = f"{path}.{name}" if name else path
            own = _is_authors(type(module))  # type: ignore[arg-type]  # a class is hashable
            # The loop itself switches the model's mode.
            ignored = _OF_EVERY_MODULE if path == _MODEL else _OF_EVERY_MODULE - {"training"}
            self.look_into(Owner(where, vars(module), ignored, scalars_only=not own))
            passing = module._non_persistent_buffers_set
            if passing:
                others = frozenset(module._buffers.keys() - passing)
                self.look_into(Owner(f"{where}[buffers]", module._buffers, others))

    def _look_at_collection(self, path: str, value: Any) -> None:
        if not 0 < len(value) <= _LISTED or isinstance(value, set | frozenset) or is_value(value):
            return
        items = value if isinstance(value, MutableMapping) else _Listed(value)
        self.look_into(Owner(path, items))

    def look_into(self, owner: Owner) -> None:
        """Look at an object's attributes, or a collection's items.

        Args:
            owner: the object.
        """
        if len(self.found.owners) >= _MOST_OWNERS and not owner.scalars_only:
            return
        self.found.owners[owner.path] = owner
        for name, value in owner.entries():
            self.look_at(f"{owner.path}.{name}", value)


def is_stateful(value: object) -> bool:
    """Say whether an object has a state of its own that can be taken and put back.

    Args:
        value: any object.
    """
    return callable(getattr(type(value), "state_dict", None)) and callable(
        getattr(type(value), "load_state_dict", None)
    )


@cache
def _is_authors(kind: type) -> bool:
    """Say whether a class is an author's, or of those of torch that only hold an author's objects."""
    if issubclass(kind, Dataset | Sampler | DataLoader):
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None:
        return kind.__module__ == "__main__"
    return not is_library(str(Path(file).resolve()))


class AuthorState:
    """The values and generators of some of an author's objects, with the objects that have a state of their own.

    Args:
        look: function that goes through the objects anew.
        device: device of the run, where tensors go that were on one.
        most_parts: tensors, arrays and collections that one value may have to be kept.
    """

    def __init__(self, look: Callable[[], Survey], device: torch.device, most_parts: int) -> None:
        self._look, self._device, self._most_parts = look, device, most_parts
        self.survey = look()
        self._first: dict[str, dict[Any, Seen]] = {}
        for owner in self.survey.owners.values():
            self._first[owner.path] = {
                name: Seen(value) for name, value in owner.entries() if is_value(value) and not self._is_owned(value)
            }
        self._link()
        self._made = {*self.survey.objects, *self.survey.modules}
        self._iterators: dict[str, object] = {}
        self._sound: set[str] = set()
        self._told: set[str] = set()

    def _link(self) -> None:
        for owner in self.survey.owners.values():
            owner.first = self._first.get(owner.path, {})
            owner.others = {
                name: value
                for name, value in owner.entries()
                if name not in owner.first and (not is_value(value) or self._is_owned(value))
            }

    def _is_owned(self, value: Any) -> bool:
        """Say whether a value is but parameters and buffers, which their modules keep."""
        if isinstance(value, torch.Tensor):
            return id(value) in self.survey.owned
        parts = value.values() if isinstance(value, Mapping) else value
        return is_collection(value) and bool(value) and all(map(self._is_owned, parts))

    @property
    def objects(self) -> dict[str, Any]:
        """Objects with `state_dict` and `load_state_dict`, by their paths."""
        return self.survey.objects

    @property
    def draws(self) -> bool:
        """Whether there are generators among the objects, or objects with a state of their own."""
        return bool(self.survey.objects) or any(
            is_generator(value) for owner in self.survey.owners.values() for value in owner.others.values()
        )

    def refresh(self) -> None:
        """Look again where another object stands in the place of one."""
        stale = [
            (owner, name, value)
            for owner in self.survey.owners.values()
            for name, value in owner.entries()
            if owner.others.get(name) is not value and not (is_generator(value) or is_value(value))
        ]
        if not stale:
            return
        self.survey = self._look()
        self._link()
        for owner, name, value in stale:
            path = f"{owner.path}.{name}"
            found = {*self.survey.objects, *self.survey.modules, *self.survey.owners, *self.survey.iterators}
            if not (path in found or isinstance(value, types.FunctionType | types.MethodType) or is_collection(value)):
                self._tell(path, f"is replaced by another {type(value).__name__} while training, {_UNKEPT}")
        for path in {*self.survey.objects, *self.survey.modules} - self._made:
            self._tell(path, "is made while training: a resumed run has none to give its state to. Make it in __init__")

    def tell_iterators(self, at_once: bool = False) -> None:
        """Warn of iterators that go on from epoch to epoch: nobody can ask them where they are.

        Args:
            at_once: whether those that there are now are meant, else those that there were at the last call too.
        """
        for path, value in self.survey.iterators.items():
            if at_once or self._iterators.get(path) is value:
                self._tell(path, f"is a {type(value).__name__}, {_UNKEPT}")
        self._iterators = dict(self.survey.iterators)

    def state_dict(self) -> dict[str, Any]:
        """Return values that have changed since the trainer was built, and the states of all generators."""
        self.refresh()
        values: dict[str, dict[Any, Any]] = {}
        generators: dict[str, dict[Any, Any]] = {}
        placed: list[list[Any]] = []
        for owner in self.survey.owners.values():
            for name, value in owner.changed():
                if is_generator(value):
                    generators.setdefault(owner.path, {})[name] = generator_state(value)
                elif is_value(value) and self._can_be_kept(f"{owner.path}.{name}", value):
                    values.setdefault(owner.path, {})[name] = plain_form(value)
                    placed += [[owner.path, name]] if on_device(value) else []
        found = {"values": values, "generators": generators, "on_device": placed}
        return {key: held for key, held in found.items() if held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. What it doesn't have becomes what it was when the trainer was built."""
        self.refresh()
        values, generators = state.get("values", {}), state.get("generators", {})
        placed = {(path, name) for path, name in state.get("on_device", [])}
        for path in sorted({*values, *generators} - self.survey.owners.keys()):
            self._tell(path, "has a state in the checkpoint, but this run has no such object: it is left out")
        for owner in self.survey.owners.values():
            kept, drawn = values.get(owner.path, {}), generators.get(owner.path, {})
            for name, value in owner.changed():
                seen = owner.first.get(name)
                if name not in kept and name not in drawn and seen is not None and seen.is_known:
                    owner.items[name] = put_back(value, seen.original(), self._device)
            for name, value in kept.items():
                device = self._device if (owner.path, name) in placed else "cpu"
                owner.items[name] = put_back(owner.items.get(name), copied(value), device)
            for name, held in drawn.items():
                owner.items[name] = with_state(owner.items.get(name), held)

    def _can_be_kept(self, path: str, value: Any) -> bool:
        if is_too_large(value, self._most_parts):
            self._tell(path, f"changes while training and has more than {self._most_parts:,} parts, {_UNKEPT}")
            return False
        if path not in self._sound:
            try:
                require_plain(plain_form(value))
            except TypeError as error:
                self._tell(path, f"changes while training ({error}), {_UNKEPT}")
                return False
            self._sound.add(path)
        return True

    def _tell(self, path: str, what: str) -> None:
        if path not in self._told:
            self._told.add(path)
            logger.warning(f"{path} {what}")


def survey_trainer(trainer: object, known: Iterable[object]) -> Survey:
    """Go through what a trainer holds, beside its loaders.

    Args:
        trainer: trainer that is built.
        known: objects that are passed over.
    """
    surveyor = _Surveyor([trainer, *known])
    attributes = vars(trainer)
    surveyor.look_at(_MODEL, attributes["model"])
    surveyor.look_into(Owner("self", attributes, _FRAMEWORK))
    return surveyor.found


def survey_data(loaders: Mapping[str, object], known: Iterable[object]) -> Survey:
    """Go through what loaders hold: samplers, datasets, what collates.

    Args:
        loaders: loaders by name. Of one whose passes follow from the epoch alone only the dataset is looked at.
        known: objects that are passed over: the trainer, of which a loader may hold a method, is looked at by itself.
    """
    surveyor = _Surveyor(known)
    for name, loader in loaders.items():
        if getattr(loader, "draws_by_epoch", False):
            dataset = getattr(loader, "dataset", None)
            surveyor.look_at(f"self.{name}.dataset", getattr(dataset, "dataset", None), root=True)
            continue
        for part in ("dataset", "batch_sampler", "sampler", "collate_fn"):
            surveyor.look_at(f"self.{name}.{part}", getattr(loader, part, None), root=True)
        surveyor.look_at(f"self.{name}", loader, root=True)
    return surveyor.found


def modules_beside(trainer: object, model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules with a state of their own that a trainer has beside its model.

    Args:
        trainer: trainer whose attributes are looked through.
        model: the trainer's model; a module that is but a wrapper around parts of it has no state of its own.

    Returns:
        The modules by their path on the trainer.
    """
    return modules_of(survey_trainer(trainer, ()), model)


def modules_of(survey: Survey, model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules with a state of their own that were found beside a model.

    Args:
        survey: what was found on the trainer.
        model: the trainer's model.

    Returns:
        The modules by their path on the trainer.
    """
    inside = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def is_own(value: object) -> bool:
        without_data = isinstance(value, torch.Tensor) and value.is_meta  # of a module that only lends its forward
        return id(value) not in inside and not without_data

    return {
        path.removeprefix("self."): module
        for path, module in survey.modules.items()
        if path != _MODEL and any(map(is_own, module.state_dict(keep_vars=True).values()))
    }
