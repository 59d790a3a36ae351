"""Hooks that see where values first stop being finite, in a forward pass and in a backward pass."""

import itertools
import linecache
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from constants import PROJECT_ROOT
from data.batches import tensors_in
from train.failures.measure import Measure, measure, plain_floats

# Operations that write given numbers, infinite ones too, on purpose; and those whose content is left to chance.
_GIVEN = re.compile(r"full|fill|scalar_tensor|where|lift|pad|copy|clone|view|expand|slice|select|cat|index_put|scatter")
_UNSET = re.compile(r"empty|resize")
_OURS = tuple(str(Path(__file__).with_name(name)) for name in ("watch.py", "probe.py", "contract.py", "failure.py"))
_SOURCE = 80  # characters of a line of code that are shown
_STANDARD = sysconfig.get_paths()["stdlib"]
_FRAME = re.compile(r'File "(.+?)", line (\d+), in (\S+)')


@dataclass(frozen=True)
class Operation:
    """An operation that made values which are not finite of values that were.

    Attributes:
        name: torch's name of the operation: `log`, `SqrtBackward0`.
        made: kind of value that the operation made: `infinity`, `NaN`, `bad gradient`.
        place: file, line and source of the code that called the operation; empty if unknown.
    """

    name: str
    made: str
    place: str

    def __str__(self) -> str:
        return f"first {self.made} made by {self.name}" + (f", {self.place}" if self.place else "")


@dataclass(eq=False)
class LayerCall:
    """One call of a module.

    Attributes:
        name: path of the module from the trainer, such as `model.encoder.0`; a second call has ` (call 2)` behind it.
        kind: class name of the module.
        leaf: whether the module has no other module inside.
        start: place of the call among all calls by the time at which they began, from 0.
        inputs: measure of the inputs; None where no floating-point tensor came in.
        output: measure of the output; None where no floating-point tensor came out.
        output_gradient: measure of the gradient of the output, the first one that is not finite if there is one; None
            where the backward pass did not bring any.
        input_gradient: measure of the gradient of the inputs, the first one that is not finite if there is one; None
            where the backward pass did not come to them.
        input_gradient_at: number of input gradients seen, over all calls, before this call's first one that is not
            finite; `sys.maxsize` without such.
    """

    name: str
    kind: str
    leaf: bool
    start: int
    module: torch.nn.Module = field(repr=False)
    inputs: Measure | None = None
    output: Measure | None = None
    output_gradient: Measure | None = None
    input_gradient: Measure | None = None
    input_gradient_at: int = sys.maxsize

    @property
    def made_bad_values(self) -> bool:
        """Whether NaN or +inf came out where none came in."""
        out, came = self.output, self.inputs
        if out is None or (came is not None and came.nan):
            return False
        return bool(out.nan or (out.inf and (came is None or came.finite)))


class ForwardWatch:
    """Watches the modules and operations of one forward pass.

    Args:
        modules: modules to watch, by name.

    Attributes:
        done: calls of modules, in the order in which their outputs came to be.
        first: the call, or None for the trainer's own code, at which values first were not finite, and where exactly;
            None if all were finite.
        operations: the first operation that made an infinite value, and the first that made a NaN.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self.done: list[LayerCall] = []
        self.first: tuple[LayerCall | None, str] | None = None
        self._modules, self._started = modules, 0
        self._open: list[LayerCall] = []
        self._calls: dict[str, int] = {}
        self._gradients = itertools.count()
        self._tracer = _Operations()
        self._stack = ExitStack()

    @property
    def operations(self) -> list[Operation]:
        """See the class."""
        return [operation for operation in (self._tracer.first_inf, self._tracer.first_nan) if operation]

    def __enter__(self) -> "ForwardWatch":
        for name, module in self._modules.items():
            before = module.register_forward_pre_hook(self._before(name), with_kwargs=True)
            after = module.register_forward_hook(self._after, with_kwargs=True)
            self._stack.callback(before.remove)
            self._stack.callback(after.remove)
        # So that the backward pass can name the line of the forward pass that it belongs to.
        self._stack.enter_context(torch.autograd.set_detect_anomaly(True, check_nan=False))
        self._stack.enter_context(self._tracer)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()  # a layer that recomputes its activations in backward is not seen there

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            number = self._calls[name] = self._calls.get(name, 0) + 1
            shown = name if number == 1 else f"{name} (call {number})"
            leaf = next(module.children(), None) is None
            with self._tracer.resting():
                call = LayerCall(shown, type(module).__name__, leaf, self._started, module, measure([args, kwargs]))
            self._started += 1
            if self.first is None and call.inputs is not None and call.inputs.wrong:
                outer = self._open[-1] if self._open else None
                self.first = (outer, f"before {shown} ({call.kind}), whose input has {call.inputs.describe()}")
            self._open.append(call)
            for tensor in tensors_in([args, kwargs]):
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._note_input_gradient(call, gradient))

        return hook

    def _after(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        call = self._open.pop()
        with self._tracer.resting():
            call.output = measure(output)
        self.done.append(call)
        if self.first is None and call.output is not None and call.made_bad_values:
            inside = "" if call.leaf else ", in its own code, behind the layers inside it"
            self.first = (call, f"its output has {call.output.describe()}{inside}")
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: self._note_output_gradient(call, gradient))

    def _note_output_gradient(self, call: LayerCall, gradient: torch.Tensor) -> None:
        call.output_gradient = _worse(call.output_gradient, measure(gradient))

    def _note_input_gradient(self, call: LayerCall, gradient: torch.Tensor) -> None:
        now, seen = next(self._gradients), measure(gradient)
        if seen is not None and not seen.finite:
            call.input_gradient_at = min(call.input_gradient_at, now)
        call.input_gradient = _worse(call.input_gradient, seen)


def _worse(one: Measure | None, other: Measure | None) -> Measure | None:
    return other if one is None or (other is not None and one.finite) else one


class _Operations(TorchDispatchMode):
    """Finds the first operations that make values which are not finite, of values that are."""

    def __init__(self) -> None:
        super().__init__()
        self.first_inf: Operation | None = None
        self.first_nan: Operation | None = None
        self._rests = False

    @contextmanager
    def resting(self) -> Iterator[None]:
        self._rests = True
        try:
            yield
        finally:
            self._rests = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if self._rests or self.first_nan is not None or _UNSET.search(name):
            return func(*args, **kwargs)
        # An operation in place has changed its first argument when it is done.
        before = _count(args[0]) if args and name.endswith("_") else None
        result = func(*args, **kwargs)
        nans, infs = _count(result)  # host-device synchronisation
        if nans or infs:
            rest = _count([args[1:] if before else args, kwargs])
            had_nans, had_infs = (a + b for a, b in zip(rest, before or (0, 0), strict=True))
            if nans and not had_nans:
                self.first_nan = Operation(name, "NaN", calling_place(sys._getframe(1)))
            elif infs and not (had_infs or had_nans or self.first_inf or _GIVEN.search(name)):
                self.first_inf = Operation(name, "infinity", calling_place(sys._getframe(1)))
        return result


def _count(value: Any) -> tuple[int, int]:
    tensors = plain_floats(value)
    return sum(int(tensor.isnan().sum()) for tensor in tensors), sum(int(tensor.isinf().sum()) for tensor in tensors)


class BackwardWatch:
    """Watches the operations of one backward pass.

    Args:
        loss: loss whose graph is watched, made inside a `ForwardWatch`.

    Attributes:
        found: the first operation that made a gradient which is not finite of finite ones.
    """

    def __init__(self, loss: torch.Tensor) -> None:
        self.found: Operation | None = None
        self._root = loss.grad_fn
        self._stack = ExitStack()

    def __enter__(self) -> "BackwardWatch":
        known, waiting = set(), [self._root]
        while waiting:
            node = waiting.pop()
            if node is None or node in known:
                continue
            known.add(node)
            waiting += [inner for inner, _ in node.next_functions]
            if node.name() != "torch::autograd::AccumulateGrad":
                self._stack.callback(node.register_hook(self._hook(node)).remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def _hook(self, node: Any) -> Callable[..., None]:
        def hook(made: tuple[Any, ...], given: tuple[Any, ...]) -> None:
            if self.found is None and any(_count(made)) and not any(_count(given)):  # host-device synchronisation
                self.found = Operation(node.name(), "bad gradient", _place_of(node.metadata.get("traceback_", [])))

        return hook


def _place_of(lines: list[str]) -> str:
    """Return the place of a traceback's last frame that is a user's."""
    for line in reversed(lines):
        match = _FRAME.search(line)
        if match and _is_users(match[1]):
            return _shown(match[1], int(match[2]), match[3])
    return ""


def calling_place(frame: FrameType | None) -> str:
    """Return the innermost place in a user's code: `train/my_trainer.py:31 in compute_loss: x.log()`, or nothing."""
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return _shown(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return ""


def _is_users(file: str) -> bool:
    foreign = "site-packages" in file or file.startswith((_STANDARD, "<"))
    return not foreign and file not in _OURS


def _shown(file: str, line: int, function: str) -> str:
    source = linecache.getline(file, line).strip()
    source = source if len(source) <= _SOURCE else f"{source[: _SOURCE - 3]}..."
    return f"{file.removeprefix(f'{PROJECT_ROOT}/')}:{line} in {function}: {source}".rstrip(": ")
