"""Finds out by trying which samples a model takes, and whether what it returns suits a task."""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import torch
from torch import nn

from commands.scaffold.constructor import Field, is_input_name
from train.errors import ScaffoldError

_BATCH, _LENGTH, _MOST_TRIES = 5, 6, 1000
_USUAL = (16, 32, 64, 8, 10, 128)
_IMAGE_SIDES, _SIGNAL_LENGTHS = (32, 28, 16, 64, 8, 224), (32, 64, 16, 128)
_HELP = (
    "`--input 16` or `--input 3x32x32` gives the shape of a sample (of each input, where there are several: 5x8,16)."
)


@dataclass(frozen=True)
class Input:
    """A tensor that the model takes.

    Attributes:
        name: name of the parameter of `forward`.
        shape: shape of a sample, without the batch.
        tokens: number of different whole numbers that the tensor may hold; None holds floats.
        keyword: whether the tensor must be given by name.
        mask: value that a mask holds where there is padding: True, False, or 0.0; None for other inputs.
    """

    name: str
    shape: tuple[int, ...]
    tokens: int | None = None
    keyword: bool = False
    mask: bool | float | None = None

    def batch(self) -> torch.Tensor:
        """Make a small batch: (5, *shape). Of a mask, the last place is padding."""
        if self.mask is not None:
            return torch.tensor([not self.mask] * (self.shape[0] - 1) + [self.mask]).to(self.dtype).expand(_BATCH, -1)
        if self.tokens is not None:
            drawn = torch.randint(0, self.tokens, (_BATCH, *self.shape))
            drawn.view(-1)[0] = self.tokens - 1  # so that the model must know them all
            return drawn
        return torch.randn(_BATCH, *self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of its tensors."""
        if self.mask is not None:
            return torch.bool if isinstance(self.mask, bool) else torch.float32
        return torch.float32 if self.tokens is None else torch.int64


@dataclass(frozen=True)
class Fit:
    """How a model is used: what it takes, and what it returns.

    Attributes:
        inputs: inputs of the model, in the order of `forward`.
        output: shape of the output for one sample.
        in_tuple: whether the output is the first of several that the model returns.
    """

    inputs: tuple[Input, ...]
    output: tuple[int, ...]
    in_tuple: bool


def shape_text(shape: Sequence[int]) -> str:
    """Return the shape of a batch of samples as docstrings and messages show it: `(B, 3, 32)`."""
    return f"(B, {', '.join(map(str, shape))})" if shape else "(B,)"


def parse_shapes(text: str | None) -> list[tuple[int, ...]]:
    """Read `--input`: `3x32x32`, or one shape for each input, separated by commas."""
    if text is None:
        return []
    try:
        shapes = [tuple(int(part) for part in shape.lower().split("x")) for shape in text.split(",")]
    except ValueError:
        shapes = [()]
    if any(not shape or min(shape) < 1 for shape in shapes):
        raise ScaffoldError(f"--input {text}: must be the shape of a sample, numbers above 0: 16 or 3x32x32 or 5x8,16.")
    return shapes


def forward_names(model_class: type[nn.Module], batch: str) -> list[tuple[str, bool]]:
    """List the tensors that `forward` needs, and whether each must be given by name.

    Raises:
        ScaffoldError: they are not what a batch of that kind can hold.
    """
    name = model_class.__name__
    if model_class.forward is nn.Module.forward:
        raise ScaffoldError(f"{name} has no forward method.")
    signature = inspect.signature(model_class.forward)
    own = list(signature.parameters.values())[1:]
    plain = [each for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    needed = [each for each in plain if each.default is each.empty] or plain[:1]
    names = [(each.name, each.kind is each.KEYWORD_ONLY) for each in needed]
    shown = f"{name}.forward{signature}"
    if not names:
        raise ScaffoldError(f"{shown} names no input; --batch {batch} needs at least one parameter that is a tensor.")
    if batch == "tensor" and len(names) > 1:
        raise ScaffoldError(
            f"{shown} needs {len(names)} inputs ({', '.join(each for each, _ in names)}); --batch tensor gives one. "
            "Use --batch dict or --batch dataclass."
        )
    return names


def optional_names(model_class: type[nn.Module]) -> list[tuple[str, bool]]:
    """List the tensors that `forward` takes but can do without, in the form of `forward_names`; no masks."""
    own = list(inspect.signature(model_class.forward).parameters.values())[1:]
    return [
        (each.name, True) for each in own
        if each.default is None and "Tensor" in str(each.annotation) and not is_mask_name(each.name)
    ]  # fmt: skip


def is_mask_name(name: str) -> bool:
    """Whether an input of that name says where there is padding."""
    return "mask" in name.lower()


def shapes_by_input(names: Sequence[tuple[str, bool]], text: str | None) -> dict[str, tuple[int, ...]]:
    """Read `--input` for a model's inputs; one shape is for all of them, and a mask's follows from it.

    Args:
        names: name of each input, and whether it must be given by name.
        text: argument of `--input`; None where there was none.
    """
    given = parse_shapes(text)
    if len(given) > 1 and len(given) != len(names):
        raise ScaffoldError(
            f"--input gives {len(given)} shapes, but forward takes {len(names)} inputs; give one of each."
        )
    shapes = {name: given[min(index, len(given) - 1)] for index, (name, _) in enumerate(names)} if given else {}
    return {name: shape[:1] if is_mask_name(name) else shape for name, shape in shapes.items()}


def find_fit(
    build: Callable[[], nn.Module],
    names: list[tuple[str, bool]],
    task: str,
    fields: Sequence[Field],
    given: dict[str, tuple[int, ...]],
) -> Fit:
    """Try shapes until the model takes one and returns what the task needs.

    Args:
        build: function that builds the model.
        names: name of each input, and whether it must be given by name.
        task: kind of task: autoencoder, ranking, transformer or classification.
        fields: settings of the model's constructor, whose names tell sizes.
        given: known shapes of a sample by input; empty where all are to be found.

    Raises:
        ScaffoldError: none fits; says what was tried.
    """
    model = build()
    built = build if is_lazy(model) else lambda: model  # one with lazy layers takes its sizes from its first batch
    options = []
    for index, (name, keyword) in enumerate(names):
        own = given.get(name)
        if is_mask_name(name):
            options.append(_masks(name, keyword, own or (_LENGTH,)))
            continue
        likely = _candidates(model, name, task, fields, own)
        if index and not own:  # a further input may be one number a sample, such as a time or a class
            likely[2:2] = [((), tokens) for tokens in dict.fromkeys(tokens for _, tokens in likely)]
        options.append([Input(name, *rest, keyword) for rest in likely])
    most = max(2, int(_MOST_TRIES ** (1 / len(options))))
    # The likeliest of all inputs first: by how far down their lists they are, together.
    places = sorted(itertools.product(*(range(len(each[:most])) for each in options)), key=sum)
    doubtful = None
    tried: dict[str, tuple[str, list[str]]] = {}  # by the reason without its numbers: the reason, the shapes
    for chosen in places[:_MOST_TRIES]:
        inputs = tuple(each[place] for each, place in zip(options, chosen, strict=True))
        reason = try_inputs(built, inputs, task)
        if isinstance(reason, Fit):
            if all(each.mask is None for each in inputs) or _masks_hide(built, inputs):
                return reason
            doubtful = doubtful or reason
            continue
        shapes = " and ".join(f"{each.name} {_size(each)}" for each in inputs)
        tried.setdefault(re.sub(r"\d+", "0", reason), (reason, []))[1].append(shapes)
    if doubtful is not None:
        return doubtful
    raise ScaffoldError(_nothing_fits(model, task, list(tried.values()), fields))


def _masks(name: str, keyword: bool, shape: tuple[int, ...]) -> list[Input]:
    """Masks to try: torch's own hide where they are True, others where they are False or 0."""
    kinds = [True, False, 0.0] if re.search("padding|absent|ignore|hid", name) else [False, True, 0.0]
    return [Input(name, shape, None, keyword, kind) for kind in kinds]


def _masks_hide(built: Callable[[], nn.Module], inputs: Sequence[Input]) -> bool:
    """Whether what the masks call padding, the last place, does not change what is returned for other places."""
    batches = [each.batch() for each in inputs]
    before = _call(built, inputs, batches)[0]
    for place, each in enumerate(inputs):
        if each.mask is None and any(other.mask is not None and other.shape == each.shape[:1] for other in inputs):
            changed = batches[place].clone()
            changed[:, -1] = changed[:, -1] + 1 if each.tokens is None else (changed[:, -1] + 1) % each.tokens
            after = _call(built, inputs, [*batches[:place], changed, *batches[place + 1 :]])[0]
            by_place = before.dim() > 1 and before.shape[1] == each.shape[0]
            pair = (before[:, :-1], after[:, :-1]) if by_place else (before, after)
            if torch.allclose(*pair, atol=1e-6):
                return True
    return False


def is_lazy(model: nn.Module) -> bool:
    """Whether a model has layers that take their sizes from the first batch."""
    return any(map(torch.nn.parameter.is_lazy, [*model.parameters(), *model.buffers()]))


def _call(built: Callable[[], nn.Module], inputs: Sequence[Input], batches: Sequence[torch.Tensor]) -> tuple[Any, bool]:
    """What a model returns, the first of several; and whether there are several."""
    plain = [batch for each, batch in zip(inputs, batches, strict=True) if not each.keyword]
    named = {each.name: batch for each, batch in zip(inputs, batches, strict=True) if each.keyword}
    output = built().eval()(*plain, **named)
    in_tuple = isinstance(output, tuple | list) and len(output) > 0
    return (output[0] if in_tuple else output), in_tuple


def try_inputs(built: Callable[[], nn.Module], inputs: tuple[Input, ...], task: str) -> Fit | str:
    """Give a model a batch.

    Args:
        built: function that returns the model.
        inputs: tensors that the model is given.
        task: kind of task: autoencoder, ranking, transformer or classification.

    Returns:
        The model's inputs and output; or the reason why it does not fit.
    """
    try:
        output, in_tuple = _call(built, inputs, [each.batch() for each in inputs])
    except (Exception, SystemExit) as error:  # whatever the model does with a shape that it does not take
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    if not isinstance(output, torch.Tensor):
        return f"forward returned a {type(output).__name__}; it must return a tensor, or a tuple that begins with one"
    if not output.requires_grad:
        return "what forward returned does not depend on the model's parameters"
    if any(each.mask is not None for each in inputs) and not bool(output.isfinite().all()):
        return "forward returned numbers that are not finite"
    shape = tuple(output.shape)
    if not shape or shape[0] != _BATCH:
        return f"forward returned {shape}, which does not begin with the batch's size {_BATCH}"
    fit = Fit(inputs, shape[1:], in_tuple)
    return _misfit(fit, task) or fit


def _misfit(fit: Fit, task: str) -> str | None:
    """Why an output does not suit the task; None where it does."""
    first, output = fit.inputs[0], fit.output
    returned = f"forward returned {shape_text(output)}"
    if task == "autoencoder":
        good = output == first.shape and first.tokens is None
        return None if good else f"{returned}; an autoencoder returns its first input's shape"
    if task == "classification":
        return None if len(output) == 1 and output[0] > 1 else f"{returned}; a classifier returns (B, classes)"
    if task == "ranking":
        return None if len(output) == 1 and output[0] > 1 else f"{returned}; a ranker returns scores (B, N), N above 1"
    if len(first.shape) != (2 if first.tokens is None else 1):
        return "a transformer's first input is a sequence: (B, T, D), or whole numbers (B, T)"
    steps, values = output[:-1], output[-1] if output else 0
    good = steps in ((), first.shape[:1])
    good = good and (values == first.tokens if first.tokens else 0 < values <= first.shape[1])
    wanted = f"(B, T, {first.tokens}) or (B, {first.tokens})" if first.tokens else "(B, T, D) or (B, D)"
    return None if good else f"{returned}; a transformer returns the next value, {wanted}"


def _candidates(
    model: nn.Module, name: str, task: str, fields: Sequence[Field], given: tuple[int, ...] | None
) -> list[tuple[tuple[int, ...], int | None]]:
    """Shapes to try for one input, the likeliest first; with each how many whole numbers, or None for floats."""
    layers = [layer for layer in model.modules() if not list(layer.children())]
    embeddings = [layer.num_embeddings for layer in layers if isinstance(layer, nn.Embedding)]
    floats: list[tuple[int, ...]]
    if given:
        floats = [given]
    else:
        sizes = list(dict.fromkeys([*_told_sizes(name, fields), *_layer_sizes(layers), *_USUAL]))[:12]
        vectors: list[tuple[int, ...]] = [(size,) for size in sizes]
        sequences: list[tuple[int, ...]] = [(_LENGTH, size) for size in sizes]
        sequences_first = task in ("ranking", "transformer")
        floats = [*_grids(layers), *(sequences + vectors if sequences_first else vectors + sequences)]
    tokens: list[tuple[tuple[int, ...], int | None]] = []
    tokens += [(given or (_LENGTH,), count) for count in dict.fromkeys(embeddings)]
    ordered: list[tuple[tuple[int, ...], int | None]] = [(shape, None) for shape in floats]
    embeds_first = bool(layers) and isinstance(layers[0], nn.Embedding)
    return [*tokens, *ordered] if embeds_first else [*ordered[:2], *tokens, *ordered[2:]]


def _told_sizes(name: str, fields: Sequence[Field]) -> Iterator[int]:
    """Sizes that the constructor's parameters tell by their names: `dataset_dim` for `dataset_tokens`, `input_dim`."""
    whole = [field for field in fields if type(field.value) is int and field.value > 0]
    word = name.split("_")[0]
    yield from (field.value for field in whole if field.parameter.split("_")[0] == word)
    yield from (field.value for field in whole if is_input_name(field.parameter))
    yield from (field.value for field in whole if field.parameter in ("d_model", "hidden_dim", "width", "dim"))


def _layer_sizes(layers: Sequence[nn.Module]) -> Iterator[int]:
    for layer in layers:
        size: Any = getattr(layer, "in_features", None) or getattr(layer, "input_size", None)
        size = size or getattr(layer, "embed_dim", None) or getattr(layer, "num_features", None)
        if isinstance(layer, nn.LayerNorm):
            size = layer.normalized_shape[-1]
        if type(size) is int and size > 0:
            yield size


def _grids(layers: Sequence[nn.Module]) -> list[tuple[int, ...]]:
    """Shapes of images or signals, where the first convolution comes before any linear layer."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    first = next((layer for layer in layers if isinstance(layer, kinds)), None)
    channels = getattr(first, "in_channels", 0) or 3  # a lazy layer has none yet
    if isinstance(first, nn.Conv2d):
        return [(channels, side, side) for side in _IMAGE_SIDES]
    if isinstance(first, nn.Conv1d):
        return [(channels, length) for length in _SIGNAL_LENGTHS]
    return [(channels, 8, 16, 16)] if isinstance(first, nn.Conv3d) else []


def _size(each: Input) -> str:
    shape = shape_text(each.shape)
    if each.mask is not None:
        return f"{shape}, {each.mask} for padding"
    return shape if each.tokens is None else f"{shape} of whole numbers below {each.tokens}"


def _nothing_fits(model: nn.Module, task: str, tried: Sequence[tuple[str, list[str]]], fields: Sequence[Field]) -> str:
    count = sum(len(shapes) for _, shapes in tried)
    lines = [f"{type(model).__name__}: no input was found that suits --task {task}; {count} tried:"]
    reasons = sorted(tried, key=lambda pair: "Error: " in pair[0])  # what was returned tells more than failures
    for reason, shapes in reasons[:8]:
        more = f" and {len(shapes) - 2} more" if len(shapes) > 2 else ""
        lines.append(f"  {'; '.join(shapes[:2])}{more}: {reason}")
    lines += [f"  ... and {len(tried) - 8} other reasons"] if len(tried) > 8 else []
    guessed = [f"{field.parameter} = {field.value!r}" for field in fields if field.default is MISSING]
    lines += [f"The model was built with {', '.join(guessed)}: it has no default for these."] if guessed else []
    return "\n".join([*lines, _HELP])
