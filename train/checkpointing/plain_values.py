"""Values that an author's objects hold: whether one has changed since it was seen first, and how it is put back."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch

from train.copies import copied

_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, range})
_COLLECTIONS = (list, tuple, set, frozenset, deque, dict, OrderedDict, defaultdict, Counter)
_COPIED = 2**16  # elements of a value that a copy is kept of, to see a change and to undo it
_SAMPLED = 2**12  # elements of a larger array that are looked at
_LONG = 1000  # parts of a collection that are looked at; of a longer one its length and its ends
_MOST_SCALARS = 100_000  # numbers and strings in one value that a checkpoint holds


def is_value(value: object) -> bool:
    """Say whether an object is plain data: numbers, strings, tensors, arrays, an enum, and collections of them.

    Args:
        value: any object. Of a long collection only the ends are looked at.
    """
    if is_scalar(value) or isinstance(value, torch.Tensor | np.ndarray):
        return True
    return type(value) in _COLLECTIONS and all(map(is_value, _looked_at(value)))


def is_scalar(value: object) -> bool:
    """Say whether an object is a number, a string or the like, which can't change by itself.

    Args:
        value: any object.
    """
    return type(value) in _SCALARS or isinstance(value, np.generic | Enum)


def is_collection(value: object) -> bool:
    """Say whether an object is a list, a dict or another collection that a checkpoint may hold.

    Args:
        value: any object.
    """
    return type(value) in _COLLECTIONS


def is_too_large(value: object, most_parts: int) -> bool:
    """Say whether a value has more parts than a checkpoint should hold.

    Args:
        value: value, as `is_value` knows it.
        most_parts: tensors, arrays and collections that it may have.
    """
    return _is_larger(value, most_parts, _MOST_SCALARS)


def is_equal(one: Any, other: Any) -> bool:
    """Say whether two values are of the same types and the same to the bit.

    Args:
        one: value, as `is_value` knows it, its tensors on the CPU.
        other: another.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return same and _bits(one) == _bits(other)
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(is_equal(item, other[key]) for key, item in one.items())
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return bool(one == other or (one != one and other != other))  # nan is not equal to itself


class Seen:
    """A value as it was when it was seen first.

    Args:
        value: value, as `is_value` knows it.

    Attributes:
        value: the very object.
        is_scalar: whether it is a number, a string or the like: the same object is then the same value.
    """

    def __init__(self, value: object) -> None:
        self.value, self.is_scalar = value, is_scalar(value)
        small = not self.is_scalar and _is_small(value)
        self._copy = copied(value) if small else None
        self._trace = _trace(value) if not self.is_scalar and not small else None

    def is_same(self, value: object) -> bool:
        """Say whether a value is the one that was seen.

        Args:
            value: what stands in its place now.
        """
        if self.is_scalar:
            return value is self.value or is_equal(value, self.value)
        if self._copy is not None:
            return is_equal(value, self._copy)
        return bool(_trace(value) == self._trace)

    @property
    def is_known(self) -> bool:
        """Whether the value can be put back to what it was."""
        return self.is_scalar or self._copy is not None

    def original(self) -> Any:
        """Return what was seen, a copy where it can change; only where it `is_known`."""
        return self.value if self.is_scalar else copied(self._copy)


@torch.no_grad()
def put_back(live: Any, kept: Any, device: torch.device | str) -> Any:
    """Return what stands for a kept value: the live object with the kept content where that can be, else a new one.

    Others may hold the same tensor, list or dict, so its content is replaced rather than the object.

    Args:
        live: what is there now.
        kept: value of the same kind, whose tensors may be on the CPU. The caller gives it away.
        device: device of tensors that have no live tensor to stand in for.
    """
    if isinstance(kept, torch.Tensor):
        if not isinstance(live, torch.Tensor):
            return kept.to(device)
        alike = live.shape == kept.shape and live.dtype == kept.dtype and live.grad_fn is None
        return live.copy_(kept) if alike else kept.to(live.device)
    if isinstance(kept, np.ndarray) and isinstance(live, np.ndarray):
        if live.shape == kept.shape and live.dtype == kept.dtype and live.flags.writeable:
            live[...] = kept
            return live
        return kept
    if isinstance(live, Enum) and type(kept) is str:
        return type(live)[kept]
    if type(live) is not type(kept) or type(kept) not in _COLLECTIONS:
        return kept
    if isinstance(kept, Mapping):
        items = {key: put_back(live.get(key), item, device) for key, item in kept.items()}
        live.clear()
        live.update(items)
        return live
    if isinstance(kept, list | tuple | deque):
        before = [*live, *[None] * (len(kept) - len(live))]
        parts = [put_back(old, new, device) for old, new in zip(before, kept, strict=False)]
        if isinstance(kept, tuple):
            return tuple(parts)
        live.clear()
        live.extend(parts)
        return live
    if isinstance(kept, set):
        live.clear()
        live.update(kept)
        return live
    return kept


def plain_form(value: Any) -> Any:
    """Return a copy of a value as a checkpoint holds it: an enum by its member's name.

    Args:
        value: value, as `is_value` knows it.
    """
    return value.name if isinstance(value, Enum) else copied(value)


def on_device(value: Any) -> bool:
    """Say whether a tensor of a value is on another device than the CPU.

    Args:
        value: value, as `is_value` knows it.
    """
    if isinstance(value, torch.Tensor):
        return value.device.type != "cpu"
    return type(value) in _COLLECTIONS and any(map(on_device, _parts(value)))


def _is_small(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.device.type == "cpu" and value.layout is torch.strided and value.numel() <= _COPIED
    if isinstance(value, np.ndarray):
        return value.size <= _COPIED and not value.dtype.hasobject
    if type(value) not in _COLLECTIONS:
        return True
    return not _is_larger(value, _LONG, 10 * _LONG) and all(map(_is_small, _parts(value)))


def _is_larger(value: object, most_parts: int, most_scalars: int) -> bool:
    parts = scalars = 0
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if type(one) in _COLLECTIONS:
            if len(one) > most_scalars:
                return True
            waiting.extend(_parts(one))
        is_part = type(one) in _COLLECTIONS or isinstance(one, torch.Tensor | np.ndarray)
        parts, scalars = parts + is_part, scalars + (not is_part)
        if parts > most_parts or scalars > most_scalars:
            return True
    return False


class _Same:
    """An object that equals itself alone."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    __hash__ = None  # type: ignore[assignment]  # it is compared, never looked up


def _trace(value: Any) -> Any:
    """Return what tells a large value from a changed one, without looking at all of it."""
    if isinstance(value, torch.Tensor):
        return (_Same(value), None if value.is_inference() else value._version, tuple(value.shape))
    if isinstance(value, np.ndarray):
        sample = value.reshape(-1)[:: max(1, value.size // _SAMPLED)] if value.flags.c_contiguous else value[:1]
        return (_Same(value), value.shape, sample.tobytes())
    if type(value) in _COLLECTIONS:
        return (_Same(value), len(value), [_trace(part) for part in _looked_at(value)])
    return _Same(value)


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value


def _looked_at(value: Any) -> Iterable[Any]:
    if len(value) <= _LONG:
        return _parts(value)
    return [value[0], value[len(value) // 2], value[-1]] if isinstance(value, list | tuple | deque) else [
        next(iter(_parts(value)))]  # fmt: skip
