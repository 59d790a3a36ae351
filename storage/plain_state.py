"""States as plain data: a tree of Python values in JSON, its tensors in safetensors. Nothing is pickled."""

import io
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_TENSOR, _TUPLE, _PAIRS, _KIND, _SPARSE = "__tensor__", "__tuple__", "__pairs__", "__kind__", "__sparse__"
_VALUE, _MORE = "value", "more"
_FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (int, float, complex, bool, str, list, dict, set, tuple, deque, Counter)
}
_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    kind.__name__: kind for kind in (Counter, OrderedDict, set, frozenset, torch.Size)
}
# safetensors knows neither; a real tensor with the two parts in a last dimension holds the same numbers.
UNSTORED = (torch.complex128, torch.complex32)

ALLOWED = (
    "numbers, strings, bytes, None, tensors, numpy arrays, and lists, tuples, dicts, sets, deques, Counters, "
    "OrderedDicts and defaultdicts of them"
)


def flatten(tree: Any, probe: bool = False, root: str = "state") -> tuple[Any, dict[str, torch.Tensor]]:
    """Split a state into what JSON holds and its tensors.

    Args:
        tree: numbers, strings, None, tensors, numpy arrays, and the collections of Python's own and of `collections`,
            nested.
        probe: whether tensors are only looked at: an empty one of its kind stands for each, and nothing is copied.
        root: first part of the tensors' references.

    Returns:
        The tree with a reference in place of each tensor, and the tensors by reference.

    Raises:
        TypeError: something else is in it; the text says where.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(tree, root, tensors, probe), tensors


def _pack(value: Any, where: str, tensors: dict[str, torch.Tensor], probe: bool) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor) and value.layout is torch.sparse_coo:  # momentum of sparse gradients
        held = torch.sparse_coo_tensor(value._indices()[:, :0], value._values()[:0], value.shape) if probe else value
        parts = [list(held.shape), held.is_coalesced(), held._indices(), held._values()]
        return {_SPARSE: _pack(parts, where, tensors, probe=False)}
    if isinstance(value, torch.Tensor):
        return _pack_tensor(value, where, tensors, probe)
    if kind is list:
        return [_pack(item, f"{where}.{index}", tensors, probe) for index, item in enumerate(value)]
    if kind is tuple:
        return {_TUPLE: _pack(list(value), where, tensors, probe)}
    if kind is dict:
        return _pack_dict(value, where, tensors, probe)
    if kind is defaultdict:
        return _pack_defaultdict(value, where, tensors, probe)
    if kind in (Counter, OrderedDict):
        return {_KIND: kind.__name__, _VALUE: _pack_dict(value, where, tensors, probe)}
    if kind is deque:
        return {_KIND: "deque", _VALUE: _pack(list(value), where, tensors, probe), _MORE: value.maxlen}
    if kind in (set, frozenset, torch.Size):
        return {_KIND: kind.__name__, _VALUE: _pack(list(value), where, tensors, probe)}
    if isinstance(value, np.ndarray | np.generic):
        return _pack_array(value, where, tensors)
    if kind in (bytes, bytearray):
        return {_KIND: kind.__name__, _VALUE: value.hex()}
    if kind is complex:
        return {_KIND: "complex", _VALUE: [value.real, value.imag]}
    if kind in (torch.dtype, torch.device):
        return {_KIND: kind.__name__, _VALUE: str(value).removeprefix("torch.")}
    # Subclasses that only say more of a number, a string or a collection (an IntEnum, a NamedTuple) come back as these.
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Mapping):
        return _pack_dict(value, where, tensors, probe)
    if isinstance(value, list | tuple):
        return _pack(list(value) if isinstance(value, list) else tuple(value), where, tensors, probe)
    raise TypeError(f"{where} is of type {kind.__name__}; a checkpoint holds {ALLOWED}.")


def _pack_tensor(value: torch.Tensor, where: str, tensors: dict[str, torch.Tensor], probe: bool) -> Any:
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        what = "quantized" if value.is_quantized else "nested" if value.is_nested else str(value.layout)
        raise TypeError(f"{where} is a tensor that is {what.removeprefix('torch.')}; a checkpoint holds dense ones.")
    if value.is_meta:
        raise TypeError(f"{where} is a tensor on the meta device, which has no data to be kept.")
    held = value.detach()
    if probe:
        held = torch.empty(0, dtype=value.dtype)
    packed: dict[str, Any] = {_TENSOR: where}
    if value.dtype in UNSTORED:
        packed[_KIND] = "complex"
        held = torch.view_as_real(held.resolve_conj())
    # A copy of its own: safetensors refuses tensors that share memory.
    tensors[where] = held.to("cpu", copy=True).contiguous()
    return packed


def _pack_array(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Pack an array or a number of numpy's in numpy's own format, which keeps any dtype that is no object."""
    stream = io.BytesIO()
    try:
        np.lib.format.write_array(stream, np.asanyarray(value), allow_pickle=False)
    except ValueError as error:
        raise TypeError(f"{where} is a numpy array of objects; a checkpoint holds {ALLOWED}.") from error
    tensors[where] = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)
    return {_TENSOR: where, _KIND: "ndarray" if isinstance(value, np.ndarray) else "generic"}


def _pack_dict(value: Mapping[Any, Any], where: str, tensors: dict[str, torch.Tensor], probe: bool) -> Any:
    pairs = [(key, _pack(item, f"{where}.{key}" if where else f"{key}", tensors, probe)) for key, item in value.items()]
    if all(type(key) is str and not key.startswith("__") for key, _ in pairs):
        return dict(pairs)
    return {_PAIRS: [[_pack(key, f"{where}.key", tensors, probe), item] for key, item in pairs]}


def _pack_defaultdict(value: Any, where: str, tensors: dict[str, torch.Tensor], probe: bool) -> Any:
    factory = value.default_factory
    name = getattr(factory, "__name__", str(factory))
    if factory is not None and _FACTORIES.get(name) is not factory:
        raise TypeError(
            f"{where} is a defaultdict of {name}; a checkpoint holds those of {', '.join(sorted(_FACTORIES))}."
        )
    return {_KIND: "defaultdict", _VALUE: _pack_dict(value, where, tensors, probe), _MORE: factory and name}


def restore(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put together again what `flatten` split.

    Args:
        packed: tree that `flatten` gave, also after a way through JSON, or one from before there were kinds.
        tensors: tensors by reference.
    """
    if isinstance(packed, list):
        return [restore(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if _TENSOR in packed:
        return _tensor_of(tensors[packed[_TENSOR]], packed.get(_KIND))
    if _KIND in packed:
        return _kind_of(packed[_KIND], restore(packed[_VALUE], tensors), packed.get(_MORE))
    if _SPARSE in packed:
        shape, coalesced, indices, values = restore(packed[_SPARSE], tensors)
        return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=coalesced, check_invariants=False)
    if _TUPLE in packed:
        return tuple(restore(item, tensors) for item in packed[_TUPLE])
    if _PAIRS in packed:
        return {restore(key, tensors): restore(item, tensors) for key, item in packed[_PAIRS]}
    return {key: restore(item, tensors) for key, item in packed.items()}


def _tensor_of(tensor: torch.Tensor, kind: str | None) -> Any:
    if kind is None:
        return tensor
    if kind == "complex":
        return torch.view_as_complex(tensor)
    array = np.lib.format.read_array(io.BytesIO(tensor.numpy().tobytes()), allow_pickle=False)
    return array if kind == "ndarray" else array[()]


def _kind_of(kind: str, value: Any, more: Any) -> Any:
    if kind == "deque":
        return deque(value, more)
    if kind == "defaultdict":
        return defaultdict(_FACTORIES[more] if more else None, value)
    if kind in ("bytes", "bytearray"):
        return bytes.fromhex(value) if kind == "bytes" else bytearray.fromhex(value)
    if kind == "complex":
        return complex(*value)
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "device":
        return torch.device(value)
    return _COLLECTIONS[kind](value)


def require_plain(tree: Any, root: str = "state") -> None:
    """Find out, without a copy of a tensor, whether a state comes back from a checkpoint as it is.

    Args:
        tree: state, as `flatten` takes it.
        root: what the text calls the state.

    Raises:
        TypeError: it doesn't; the text says where.
    """
    packed, tensors = flatten(tree, probe=True, root=root)
    try:
        written = json.dumps(packed)
    except (ValueError, RecursionError) as error:  # a state that holds itself
        raise TypeError(f"the state can't be written: {error}") from error
    again, _ = flatten(restore(json.loads(written), tensors), probe=True, root=root)
    if json.dumps(again) != written:
        raise TypeError("the state does not come back as it is")
