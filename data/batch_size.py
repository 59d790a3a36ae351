"""How many samples a batch has: by that its loss and metrics weigh in an epoch's means and in an accumulation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

from data.batches import is_sequence, named_parts, size_of
from data.first_batch import FirstBatch

_DECLARED = ("batch_size", "num_graphs")  # what a batch may say itself; torch_geometric has num_graphs
_MOVED = (AttributeError, KeyError, IndexError, TypeError, RuntimeError)  # what a batch of another structure raises


@dataclass(frozen=True)
class CountingRule:
    """Where in a batch its number of samples is found.

    Attributes:
        path: keys, positions and names of fields that lead to a part of the batch.
        dim: dimension of that part, a tensor or array, whose size counts; None where the part's length does.
        declared: whether the part is the number itself.
    """

    path: tuple[Any, ...]
    dim: int | None = 0
    declared: bool = False

    def __call__(self, batch: Any) -> int:
        """Return the number of samples of a batch; another structure raises one of several errors."""
        part = batch
        for key in self.path:
            part = getattr(part, key) if type(key) is str and not isinstance(part, Mapping) else part[key]
        if self.declared:
            return int(part[0] if isinstance(part, tuple) else part)
        if isinstance(part, PackedSequence):
            return int(part.batch_sizes[0])  # on the CPU, always
        return len(part) if self.dim is None else size_of(part, self.dim)

    def __str__(self) -> str:
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path).removeprefix(".")


def batch_size_of(batch: Any) -> int:
    """Count the samples of a batch by its looks alone; `SampleCounter` knows the loader too.

    Args:
        batch: a tensor (B, ...), or mappings, lists, tuples, dataclasses and named tuples that hold some. An integer
            `batch_size` of a mapping or object wins, or `num_graphs` as torch_geometric has it.

    Returns:
        B: the first dimension of the first tensor found; of a PackedSequence its sequences; of a list whose tensors
            differ in their first dimension, or that holds strings, numbers or such, its length. 1 where there is none.
    """
    if type(batch) is torch.Tensor:
        return size_of(batch, 0) if batch.dim() else 1
    rule = _first_rule(batch)
    return 1 if rule is None else rule(batch)


def _first_rule(batch: Any) -> CountingRule | None:
    return _declared(batch) or next(_rules(batch), None)


def _declared(batch: Any, path: tuple[Any, ...] = ()) -> CountingRule | None:
    """Find where a batch says its size itself: the outermost place, then by order."""
    if isinstance(batch, torch.Tensor | str | bytes) or batch is None or len(path) > 3:
        return None
    named = named_parts(batch)
    for name in _DECLARED:
        value = named[name] if name in named else None if isinstance(batch, Mapping) else getattr(batch, name, None)
        if (type(value) is int and value >= 0) or (isinstance(value, torch.Size) and len(value)):
            return CountingRule((*path, name), declared=True)
    parts = named.items() if named else enumerate(batch) if type(batch) in (list, tuple) else ()
    if type(batch) is list and len(batch) > 8:  # samples, most likely
        return None
    return next((rule for key, part in parts if (rule := _declared(part, (*path, key)))), None)


def _rules(batch: Any, path: tuple[Any, ...] = ()) -> Iterator[CountingRule]:
    """Yield the rules that a batch's looks allow: first dimensions in their order, then lengths of lists."""
    lengths: list[CountingRule] = []
    yield from _by_rows(batch, path, lengths)
    yield from lengths


def _by_rows(part: Any, path: tuple[Any, ...], lengths: list[CountingRule]) -> Iterator[CountingRule]:
    if isinstance(part, PackedSequence):
        yield CountingRule(path)
    elif is_array(part):
        if part.ndim:
            yield CountingRule(path)
    elif named := named_parts(part):
        for key, inner in named.items():
            yield from _by_rows(inner, (*path, key), lengths)
    elif is_sequence(part) and len(part):
        sizes = [_rows_inside(inner) for inner in part]
        if (path or isinstance(part, list)) and None not in sizes and len(set(sizes)) > 1 and _look_alike(part):
            yield CountingRule(path, dim=None)  # samples of different length
            return
        if any(size is not None for size in sizes):
            for number, inner in enumerate(part):
                yield from _by_rows(inner, (*path, number), lengths)
        if isinstance(part, list) or path:
            lengths.append(CountingRule(path, dim=None))
    elif callable(getattr(part, "to", None)):  # not a container, but it moves: a batch of graphs
        for key, inner in getattr(part, "__dict__", {}).items():
            yield from _by_rows(inner, (*path, key), lengths)


def _look_alike(parts: Sequence[Any]) -> bool:
    """Say whether parts of a list may be samples, since they differ in nothing but sizes."""
    return len({(type(part), part.ndim, str(part.dtype)) if is_array(part) else (type(part),) for part in parts}) == 1


def _rows_inside(part: Any) -> int | None:
    rule = next(_by_rows(part, (), []), None)
    return None if rule is None else rule(part)


def is_array(part: Any) -> bool:
    """Say whether something is a tensor or an array of numpy's kind, not a number of its."""
    return isinstance(part, torch.Tensor) or (hasattr(part, "ndim") and hasattr(part, "shape"))


class SampleCounter:
    """Counts the samples of a run's batches by a rule that it finds out at each loader's first batch."""

    def __init__(self) -> None:
        self._rules: dict[type, CountingRule | None] = {}

    def __call__(self, batch: Any) -> int:
        """Return the number of samples of a batch; 1 where nothing tells."""
        if type(batch) is torch.Tensor and torch.Tensor not in self._rules:
            return size_of(batch, 0) if batch.dim() else 1
        kind = type(batch)
        if kind in self._rules:
            rule = self._rules[kind]
            try:
                return 1 if rule is None else rule(batch)
            except _MOVED:  # validation may have batches of another structure
                return batch_size_of(batch)
        rule = self._rules[kind] = _first_rule(batch)
        return 1 if rule is None else rule(batch)

    def learn(self, first: FirstBatch) -> str | None:
        """Find out by what a loader's batches are counted.

        Where the loader's samples are known, that is what has as many as there are samples, and one fewer where one
        is left out.

        Args:
            first: first batch of the loader.

        Returns:
            None where it is clear. Else what disagrees, such as `x: 37, edge_index: 2`.
        """
        batch, kind = first.batch, type(first.batch)
        declared = _declared(batch)
        rules = [declared] if declared else list(_rules(batch))
        if not declared and first.samples is not None and first.collate is not default_collate:
            known = _confirmed(rules, batch, [sample for sample in first.samples if sample is not None], first.collate)
            if known is not None:
                if kind is not torch.Tensor or known.dim != 0 or known.path:
                    self._rules[kind] = known
                return None
        if kind is not torch.Tensor:
            self._rules[kind] = rules[0] if rules else None
        sizes = {str(rule) or "the batch": rule(batch) for rule in _by_rows(batch, (), [])}
        if declared or len(set(sizes.values())) < 2:
            return None
        return ", ".join(f"{name}: {size}" for name, size in [*sizes.items()][:6])


def _confirmed(
    rules: list[CountingRule], batch: Any, samples: list[Any], collate: Callable[[list[Any]], Any] | None
) -> CountingRule | None:
    """Return the first rule that counts the samples, also where one of them is left out."""
    count = len(samples)
    second = [CountingRule(rule.path, dim=1) for rule in rules if rule.dim == 0]  # sequences with time first
    fitting = [rule for rule in [*rules, *second] if _counts(rule, batch, count)]
    if collate is None or count < 2 or not fitting:
        return next((rule for rule in fitting if rule.dim != 1), None)
    try:
        fewer = collate(samples[:-1])
    except Exception:  # whatever a user's function has against another number of samples
        return next((rule for rule in fitting if rule.dim != 1), None)
    return next((rule for rule in fitting if _counts(rule, fewer, count - 1)), None)


def _counts(rule: CountingRule, batch: Any, count: int) -> bool:
    try:
        return rule(batch) == count
    except _MOVED:
        return False
