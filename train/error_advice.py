"""What an error in a user's code means and what to do about it: `explained` is the one place that words such errors.

An advice must follow from the error. So each rule below goes by what torch or Python has said, and where it can it
looks at the values that were there, in the frames of the traceback. An error that no rule knows gets no advice.
"""

import difflib
import errno
import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from constants import PACKAGE_ROOT, PROJECT_ROOT
from data.batches import describe
from train.error_location import innermost, place, user_frames
from train.removed_arguments import explain_torch_argument

_SHOWN = 8  # names or values of a list
_PART_NAMES = ("x", "y", "z")  # in the line that takes a batch apart
_OUT_OF_MEMORY = (
    "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR",
    "can't allocate memory", "cannot allocate memory",
)  # fmt: skip
_INTEGERS = ("Long", "Int", "Short", "Char", "Byte", "Bool", "long int", "int", "unsigned char", "bool")
# A batch, or a part of it, was taken for something that it is not.
_OTHER_CONTAINER = re.compile(
    r"'(?:list|tuple|dict)' object has no attribute|(?:list|tuple) indices must be integers|"
    r"must be Tensor, not (?:list|tuple|dict)|values to unpack|cannot unpack|new\(\): invalid data type"
)
_SHAPES = re.compile(
    r"shapes cannot be multiplied|size of tensor|size .*must match|Sizes of tensors|is invalid for input of size|"
    r"to have \d+ channels|normalized_shape|running_mean should|input_size|embedding dimension|does not broadcast|"
    r"batch_size \(|[Tt]arget size|target tensor expected|out of bounds for dimension|Dimension out of range|"
    r"must have the same size|[Ee]xpected \d+D|expected input to be|Kernel size can't be|must be of the same shape|"
    r"same number of dim"
)


def explained(error: BaseException) -> str:
    """Say an error with its place in the user's code, what was there, and what to do.

    Args:
        error: error as it was caught, with its traceback.

    Returns:
        `train/my_trainer.py:31 in compute_loss: KeyError: 'image'`, and further lines where there is more to say.
    """
    head = f"{where(error)}{type(error).__name__}: {_first_lines(error)}"
    return "\n".join([head, *(f"  {line}" for line in advice(error))])


def where(error: BaseException) -> str:
    """Name the user's line that an error came from, or else the verb: `self.scheduler.step(): `; empty if neither."""
    frames = traceback.extract_tb(error.__traceback__)
    named = place(frames)
    if named:
        return named
    for frame in frames:
        path = frame.filename.replace("\\", "/")
        # A scheduler also wraps the optimizer's step, to count it.
        if path.endswith("torch/optim/lr_scheduler.py") and frame.name != "wrapper":
            return "self.scheduler.step(): "
        if "/torch/optim/" in path:
            return "self.optimizer.step(): "
        if path.endswith("torch/autograd/__init__.py"):
            return "backward of the loss: "
    return ""


def advice(error: BaseException) -> list[str]:
    """Return what to do about an error: sentences, one a line; empty where nothing is known.

    Looking at values on a device is a host-device synchronisation.

    Args:
        error: error as it was caught, with its traceback.
    """
    seen = _Seen(error)
    found = next(filter(None, (_found(rule, seen) for rule in _RULES)), [])
    return [*found, *getattr(error, "__notes__", [])]


def is_of_code(error: BaseException) -> bool:
    """Say whether what is known of an error is that the code is wrong, whatever the data are."""
    seen = _Seen(error)
    found = [rule for rule in _RULES if rule not in _OF_CODE and _found(rule, seen)]
    return not found and any(_found(rule, seen) for rule in _OF_CODE)


def _found(rule: Callable[["_Seen"], list[str]], seen: "_Seen") -> list[str]:
    try:
        return rule(seen)
    except Exception:  # values of anybody's, in any state: advice must not hide what it is for
        return []


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a device, or the host, has no more memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def bad_row(error: BaseException) -> int | None:
    """Return the row of the batch whose label or index is out of range; None where the error is another one."""
    seen = _Seen(error)
    for find in (_bad_labels, _bad_indices):
        found = find(seen)
        if found is not None:
            _, values, bad = found
            return int(bad.nonzero()[0, 0]) if values.dim() and bad.any() else None  # host-device synchronisation
    return None


def _first_lines(error: BaseException) -> str:
    """The error's own text without torch's frames in C++ and its advice to other developers."""
    text = str(error).split("\nException raised from")[0]
    for tail in (
        "\nSearch for `cudaError",
        "\nCUDA kernel errors might be asynchronously",
        "\nCompile with `TORCH_USE_",
    ):
        text = text.split(tail)[0]
    return text.strip()


class _Seen:
    """An error with the values of its frames.

    Attributes:
        error: the error.
        text: what the error says.
        frames: frames of the traceback, the innermost last.
    """

    def __init__(self, error: BaseException) -> None:
        self.error, self.text = error, str(error)
        self.frames: list[tuple[FrameType, int]] = list(traceback.walk_tb(error.__traceback__))

    def values_of(self, function: str, file: str) -> dict[str, Any]:
        """Return the local values of the innermost call of a function, empty where there was none."""
        frame = innermost((frame for frame, _ in self.frames), function, file)
        return {} if frame is None else frame.f_locals

    def layer(self) -> str:
        """Name the innermost module that was at work, with its path in the outermost: `1.attention (Linear(4, 2))`."""
        owners = [frame.f_locals.get("self") for frame, _ in self.frames]
        modules = [owner for owner in owners if isinstance(owner, torch.nn.Module)]
        if not modules:
            return ""
        paths = {id(module): name for name, module in modules[0].named_modules()}
        path, shown = paths.get(id(modules[-1]), ""), repr(modules[-1])
        kind = shown if "\n" not in shown and len(shown) < 80 else type(modules[-1]).__name__
        return f"layer {path}, {kind}," if path else kind

    def user_line(self) -> tuple[dict[str, Any], str]:
        """Return the values and the source of the innermost line of the user's."""
        wanted = set(map(_identity, user_frames(traceback.extract_tb(self.error.__traceback__))))
        for frame, line in reversed(self.frames):
            if (frame.f_code.co_filename, line) in wanted:
                return dict(frame.f_locals), _source(frame, line)
        return {}, ""

    def named_values(self) -> Iterator[tuple[str, Any]]:
        """Go through the values that the user's line names: `batch`, `self.weights`."""
        values, source = self.user_line()
        for name in dict.fromkeys(re.findall(r"(?<![\w.])(?:self\.)?[A-Za-z_]\w*", source)):
            owner, _, attribute = name.rpartition(".")
            if owner and owner in values:
                with_name = vars(values[owner]) if hasattr(values[owner], "__dict__") else {}
                if attribute in with_name:
                    yield name, with_name[attribute]
            elif not owner and name in values:
                yield name, values[name]


def _identity(frame: traceback.FrameSummary) -> tuple[str, int]:
    return frame.filename, frame.lineno or 0


def _source(frame: FrameType, line: int) -> str:
    """Return the whole statement of a line, which may go on over several."""
    try:
        lines, first = inspect.getsourcelines(frame.f_code)
    except (OSError, TypeError):
        return linecache.getline(frame.f_code.co_filename, line)
    at = line - max(first, 1)
    text, depth = "", 0
    for part in lines[at : at + 10]:
        text += part
        depth += sum(map(part.count, "([{")) - sum(map(part.count, ")]}"))
        if depth <= 0:
            break
    return text


# ------------------------------------------------------------------------------------------------------------ the rules


def _memory(seen: _Seen) -> list[str]:
    if not is_out_of_memory(seen.error):
        return []
    return [
        "Make batch_size smaller; accumulation_steps = 2 with half the batch_size gives the same steps.",
        "`--find-batch-size` finds the largest that fits; precision = bf16 and recompute_activations = on need less.",
    ]


def _on_the_gpu(seen: _Seen) -> list[str]:
    if "device-side assert" not in seen.text:
        return []
    return [
        "A GPU kernel was given an index out of range: mostly a label that is not below the number of outputs, or an",
        "index beyond an embedding's rows. It is told late, so the line above may not be the one. `device=cpu` names",
        "the line, the label and the sample; CUDA_LAUNCH_BLOCKING=1 before the command names the line on the GPU.",
    ]


def _bad_labels(seen: _Seen) -> tuple[int, torch.Tensor, torch.Tensor] | None:
    """Return the number of outputs, the labels, and which of them are out of range."""
    found = seen.values_of("cross_entropy", "functional.py") or seen.values_of("nll_loss", "functional.py")
    if not found or "out of bounds" not in seen.text:
        return None
    scores, target = found["input"], found["target"]
    outputs = scores.shape[1] if scores.dim() > 1 else scores.shape[0]
    return outputs, target, ((target < 0) | (target >= outputs)) & (target != found.get("ignore_index", -100))


def _label(seen: _Seen) -> list[str]:
    found = _bad_labels(seen)
    if found is None:
        return []
    outputs, target, bad = found
    return [
        f"The model has {outputs} outputs, so labels must be 0 to {outputs - 1}; {_bad_values('label', target, bad)}.",
        _missing_output(target[bad], outputs),
    ]


def _missing_output(bad: torch.Tensor, outputs: int) -> str:
    if int(bad.min()) < 0:
        return "Labels may not be negative; a sample that shall not count has the label ignore_index (-100)."
    if int(bad.min()) == int(bad.max()) == outputs:
        return "Labels that count from 1 must become 0, 1, ... (labels - 1); else the model needs one more output."
    return f"Give the model {int(bad.max()) + 1} outputs, or mend the labels."


def _bad_indices(seen: _Seen) -> tuple[int, torch.Tensor, torch.Tensor] | None:
    """Return the number of an embedding's rows, the indices, and which of them are out of range."""
    found = seen.values_of("embedding", "functional.py")
    if not found or "index out of range" not in seen.text:
        return None
    rows, indices = found["weight"].shape[0], found["input"]
    return rows, indices, (indices < 0) | (indices >= rows)


def _embedding(seen: _Seen) -> list[str]:
    found = _bad_indices(seen)
    if found is None:
        return []
    rows, indices, bad = found
    negative = int(indices.min()) < 0
    return [
        f"{seen.layer() or 'The embedding'} has {rows} rows, so indices must be 0 to {rows - 1}; "
        f"{_bad_values('index', indices, bad)}.",
        "Indices may not be negative." if negative else f"Give it {int(indices.max()) + 1} rows, or mend the indices.",
    ]


def _bad_values(what: str, values: torch.Tensor, bad: torch.Tensor) -> str:
    """Name the first bad value and its row: `label 10 is in row 3 of the batch`."""
    places = bad.nonzero()  # host-device synchronisation
    first = places[0].tolist() if places.numel() else []
    value = values[tuple(first)].item()
    row = f"row {first[0]} of the batch" if first else "the batch"
    many = f" ({len(places)} in all are out of range)" if len(places) > 1 else ""
    return f"{what} {value} is in {row}{many}"


def _one_hot(seen: _Seen) -> list[str]:
    if "Class values must be" not in seen.text:
        return []
    known = [f"{name} is from {int(value.min())} to {int(value.max())}" for name, value in seen.named_values()
             if isinstance(value, torch.Tensor) and value.numel() and not value.is_floating_point()]  # fmt: skip
    return [f"one_hot takes 0 to num_classes - 1{'; ' + ', '.join(known) if known else ''}."]


def _probabilities(seen: _Seen) -> list[str]:
    if "all elements of input should be between 0 and 1" in seen.text:
        return ["Give it probabilities (.sigmoid()), or give the scores to binary_cross_entropy_with_logits."]
    if "all elements of target should be between 0 and 1" in seen.text:
        return ["The targets are no probabilities: scale them, or take another loss (cross_entropy for classes)."]
    return []


def _number_types(seen: _Seen) -> list[str]:
    text = seen.text
    if found := re.search(
        r"expected target dtype to be Long.*got (\w+)|expected scalar type Long but found (\w+)", text
    ):
        given = found[1] or found[2]
        return [f"Classes are int64: labels.long(); they are {given}. Scores of classes would have the outputs' shape."]
    if "target with class probabilities, got" in text:
        return [
            "Scores must be (samples, classes) where labels are (samples,): the model's outputs have one dimension."
        ]
    if "must be 0D or 1D" in text or "0D or 1D target tensor expected" in text:
        return ["Labels must be (samples,), one class each: labels.squeeze(1), or .argmax(1) of one-hot ones.",
                *_tensors(seen)]  # fmt: skip
    if "scalar types: Long, Int; but got" in text:
        return ["Indices of an embedding are integers: .long()."]
    if "cast to the desired output type" in text:
        return ["Targets of this loss are floating-point numbers: .float().", *_tensors(seen)]
    pair = re.search(
        r"same dtype, but got (?P<given>[\w ]+?) and (?P<own>\w+)|Found dtype (?P<given2>\w+) but expected", text
    )
    pair = pair or re.search(r"Input type \((?P<given>[^)]+)\) and (?:weight|bias) type \((?P<own>[^)]+)\)", text)
    if pair is None:
        return []
    if "cuda" in pair[0].lower() and "torch" in pair[0]:
        return _devices_advice()
    given = pair.groupdict().get("given") or pair.groupdict().get("given2") or ""
    whose = "numpy makes float64" if given.lower() == "double" else f"the data is {given}"
    if given in _INTEGERS:
        whose = f"the data is of integers ({given})"
    return [f"{whose}, the model's weights are {pair.groupdict().get('own') or 'Float'}: give it .float() of the data."]


def _devices(seen: _Seen) -> list[str]:
    if "on the same device" in seen.text or "device type tensor to numpy" in seen.text:
        return _devices_advice() if "numpy" not in seen.text else ["Bring it to the host first: .cpu()."]
    return []


def _no_cuda(seen: _Seen) -> list[str]:
    if any(text in seen.text for text in ("not compiled with CUDA", "No CUDA GPUs", "no NVIDIA driver")):
        return ["There is no CUDA here. Instead of .cuda() or a device by name write .to(self.device), which goes by "
                "the setting device."]  # fmt: skip
    return []


def _devices_advice() -> list[str]:
    return [
        "Move the batch: batch.to(self.device), or to_device(batch, self.device) of data.batches for dicts and tuples.",
        "Tensors that the model keeps belong in register_buffer, modules in attributes of the model.",
    ]


def _gradients(seen: _Seen) -> list[str]:
    text = seen.text
    if "does not require grad and does not have a grad_fn" in text:
        return ["Nothing that is trained was used: a .detach(), .item() or no_grad() on the way, or all layers frozen.",
                "Validation and the try of its first batch run without gradients: with torch.enable_grad() inside the "
                "hook has them there."]  # fmt: skip
    if "backward through the graph a second time" in text:
        return [
            "Something of an earlier step is used again, such as a hidden state or a running mean: .detach() it there."
        ]
    if "modified by an inplace operation" in text:
        return ["An operation that ends in _ , or +=, has changed what backward needs: write x = x + y instead."]
    if "Can't call numpy() on Tensor that requires grad" in text:
        return ["Take it out of the graph first: .detach().cpu().numpy()."]
    if "Expected more than 1 value per channel" in text:
        return ["Batch norm needs two samples or more in training, and a batch has one: the last one, if the number of "
                "samples is", "a multiple of batch_size plus 1. Give the loader drop_last=True, or another "
                "batch_size."]  # fmt: skip
    return []


def _scheduler(seen: _Seen) -> list[str]:
    found = re.search(r"Tried to step (\d+) times\. The specified number of total steps is (\d+)", seen.text)
    if found:
        return [
            f"The schedule was made for {found[2]} steps: total_steps must be the run's optimizer steps,",
            "-(-len(self.train_loader) // self.config.accumulation_steps) * self.config.epochs. A run that is resumed "
            "with more epochs", "can't go on with such a schedule.",
        ]  # fmt: skip
    if "missing 1 required positional argument: 'closure'" in seen.text:
        return [
            "This optimizer evaluates the loss by itself: it needs a train() of your own (docs/writing_a_trainer.md)."
        ]
    return []


def _argument(seen: _Seen) -> list[str]:
    told = explain_torch_argument(seen.error) if isinstance(seen.error, TypeError) else None
    return [told] if told else []


def _key(seen: _Seen) -> list[str]:
    if type(seen.error) is not KeyError or not seen.error.args:
        return []
    key = seen.error.args[0]
    lines = []
    for name, value in seen.named_values():
        if isinstance(value, Mapping) and key not in value:
            known = [repr(each) for each in value]
            near = difflib.get_close_matches(repr(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{name} has {_listed(known) or 'nothing'}{hint}")
    return lines


def _container(seen: _Seen) -> list[str]:
    if not _OTHER_CONTAINER.search(seen.text):
        return []
    lines = []
    for name, value in seen.named_values():
        if isinstance(value, list | tuple | Mapping) or hasattr(value, "__dataclass_fields__"):
            parts = len(value) if isinstance(value, list | tuple) else 0
            hint = f"; its only part is {name}[0]" if parts == 1 else ""
            if 1 < parts <= len(_PART_NAMES):
                hint = f": write {', '.join(_PART_NAMES[:parts])} = {name}, or take {name}[0]"
            lines.append(f"{name} is {describe(value)}{hint}")
    return lines[:_SHOWN] or _tensors(seen)


def _shapes(seen: _Seen) -> list[str]:
    if not _SHAPES.search(seen.text):
        return []
    layer, lines = seen.layer(), []
    if product := re.search(r"shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)", seen.text):
        what = f"{layer} takes" if layer else "The second factor has"
        lines.append(f"{what} {product[3]} values a row; it was given {product[2]}.")
    elif channels := re.search(r"to have (\d+) channels, but got (\d+)", seen.text):
        lines.append(
            f"{layer} takes {channels[1]} channels (samples, channels, height, width); it was given {channels[2]}."
        )
    elif layer:
        lines.append(f"It was in {layer.removesuffix(',')}.")
    return [*lines, *_tensors(seen)]


def _tensors(seen: _Seen) -> list[str]:
    """Say what the tensors are that the user's line names: `there: x (8, 3) float32, labels (8,) int64`."""
    shown = []
    for name, value in seen.named_values():
        if isinstance(value, torch.Tensor):
            shown.append(f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}")
        elif name == "batch" or (isinstance(value, list | tuple | Mapping) and name.endswith("batch")):
            shown.append(f"{name} {describe(value)}")
    return [f"there: {', '.join(shown[:_SHOWN])}"] if shown else []


def _files(seen: _Seen) -> list[str]:
    error = seen.error
    if not isinstance(error, OSError) or error.filename is None:
        return []
    path = Path(str(error.filename))
    if error.errno == errno.ENOENT:
        parent = next((each for each in path.absolute().parents if each.exists()), Path("/"))
        there = sorted(each.name for each in parent.iterdir()) if parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=1)
        begins = "" if path.is_absolute() else f" Relative paths begin at {Path.cwd()}."
        return [f"There is no such file.{begins}" + (f" Did you mean {parent / near[0]}?" if near else "")]
    if error.errno in (errno.EACCES, errno.EPERM):
        return [f"This user may not open {path}: give the right to (chmod), or take another path."]
    if error.errno == errno.EISDIR:
        return [f"{path} is a folder, where a file is needed."]
    if error.errno == errno.ENOSPC:
        return ["The disk is full: free some space, or write to another one."]
    return []


def _module(seen: _Seen) -> list[str]:
    error = seen.error
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return []
    package, _, module = error.name.rpartition(".")
    room = PROJECT_ROOT / error.name.partition(".")[0]
    if room.is_dir() or (PACKAGE_ROOT / room.name).is_dir():  # ours or the project's own: nothing to be installed
        folders = [root / package.replace(".", "/") for root in (PROJECT_ROOT, PACKAGE_ROOT)]
        there = sorted({path.stem for folder in folders for path in folder.glob("*.py")})
        near = difflib.get_close_matches(module, there, n=1)
        hint = f": did you mean {package}.{near[0]}?" if near else f" in {folders[0]}."
        return [f"There is no {error.name.replace('.', '/')}.py{hint}"]
    return [f"Install it (pip install {room.name}, where the package has that name), or mend the name."]


def _attribute(seen: _Seen) -> list[str]:
    error = seen.error
    if type(error) is not AttributeError or not error.name or error.obj is None:
        return []
    names = [name for name in dir(error.obj) if not name.startswith("_")]
    near = difflib.get_close_matches(error.name, names, n=1)
    if near:
        return [f"Did you mean {near[0]}?"]
    kind = type(error.obj).__name__
    return [f"A setting is a field of {kind}, with a type and a default."] if kind.endswith("Config") else []


def _parameters(seen: _Seen) -> list[str]:
    if "optimizer can only optimize Tensors" in seen.text or "params argument given to the optimizer" in seen.text:
        return ["An optimizer takes parameters, such as self.model.parameters(), or groups of them as dicts."]
    return []


def _metrics(seen: _Seen) -> list[str]:
    """What `_collect_batch_metrics` was given; it looks at nothing itself, since it is called at each step."""
    values = seen.values_of("_collect_batch_metrics", "train/base_trainer.py")
    if "metrics" not in values:
        return []
    given = values["metrics"]
    if not isinstance(given, Mapping):
        return [f'_collect_batch_metrics takes a dict, such as {{"accuracy": value}}; it was given {describe(given)}.']
    return [
        f"The metric {name!r} is {value!r}; it must be a number or a tensor."
        for name, value in given.items()
        if isinstance(value, str | None)
    ]


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f", ... ({len(items)} in all)" if len(items) > _SHOWN else "")


_RULES: tuple[Callable[[_Seen], list[str]], ...] = (
    _memory, _on_the_gpu, _label, _embedding, _one_hot, _probabilities, _number_types, _devices, _no_cuda, _gradients,
    _scheduler, _argument, _key, _container, _shapes, _files, _module, _attribute, _parameters, _metrics,
)  # fmt: skip
_OF_CODE = frozenset({_no_cuda, _attribute, _parameters, _metrics})  # rules of errors that no other data would mend
