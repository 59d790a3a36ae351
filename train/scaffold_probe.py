"""Finds out by trying which samples a model takes, and whether what it returns suits a task."""

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import torch
from torch import nn

from train.errors import ScaffoldError
from train.scaffold_model import Field, is_input_name

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
        name: of the parameter of `forward`.
        shape: of a sample.
        tokens: how many different whole numbers it may hold; None holds floats.
        keyword: whether it must be given by name.
    """

    name: str
    shape: tuple[int, ...]
    tokens: int | None = None
    keyword: bool = False

    def batch(self) -> torch.Tensor:
        """Make a small batch: (5, *shape)."""
        if self.tokens is not None:
            return torch.randint(0, self.tokens, (_BATCH, *self.shape))
        return torch.randn(_BATCH, *self.shape)


@dataclass(frozen=True)
class Fit:
    """How a model is used: what it takes, and what it returns.

    Attributes:
        inputs: in the order of `forward`.
        output: shape for one sample.
        in_tuple: whether the output is the first of several.
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


def shapes_by_input(names: list[tuple[str, bool]], text: str | None) -> dict[str, tuple[int, ...]]:
    """Read `--input` for a model's inputs; one shape is for all of them."""
    given = parse_shapes(text)
    if len(given) > 1 and len(given) != len(names):
        raise ScaffoldError(
            f"--input gives {len(given)} shapes, but forward takes {len(names)} inputs; give one of each."
        )
    return {name: given[min(index, len(given) - 1)] for index, (name, _) in enumerate(names)} if given else {}


def find_fit(
    model: nn.Module,
    names: list[tuple[str, bool]],
    task: str,
    fields: Sequence[Field],
    given: dict[str, tuple[int, ...]],
) -> Fit:
    """Try shapes until the model takes one and returns what the task needs.

    Args:
        model: built.
        names: as `forward_names` gives them.
        task: autoencoder, ranking, transformer or classification.
        fields: the constructor's settings: their names tell sizes.
        given: shapes of a sample by input; empty where they are to be found.

    Raises:
        ScaffoldError: none fits; says what was tried.
    """
    options = []
    for index, (name, keyword) in enumerate(names):
        own = given.get(name)
        shapes = _candidates(model, name, task, fields, own)
        if index and not own:  # a further input may be one number a sample, such as a time or a class
            shapes[2:2] = [((), tokens) for tokens in dict.fromkeys(tokens for _, tokens in shapes)]
        options.append([Input(name, *rest, keyword) for rest in shapes])
    most = max(2, int(_MOST_TRIES ** (1 / len(options))))
    # The likeliest of all inputs first: by how far down their lists they are, together.
    places = sorted(itertools.product(*(range(len(each[:most])) for each in options)), key=sum)
    model.eval()
    tried: dict[str, tuple[str, list[str]]] = {}  # by the reason without its numbers: the reason, the shapes
    for chosen in places[:_MOST_TRIES]:
        inputs = tuple(each[place] for each, place in zip(options, chosen, strict=True))
        reason = _try(model, inputs, task)
        if isinstance(reason, Fit):
            return reason
        shapes = " and ".join(f"{each.name} {_size(each)}" for each in inputs)
        tried.setdefault(re.sub(r"\d+", "0", reason), (reason, []))[1].append(shapes)
    raise ScaffoldError(_nothing_fits(model, task, list(tried.values()), fields))


def _try(model: nn.Module, inputs: tuple[Input, ...], task: str) -> Fit | str:
    batches = [each.batch() for each in inputs]
    plain = [batch for each, batch in zip(inputs, batches, strict=True) if not each.keyword]
    named = {each.name: batch for each, batch in zip(inputs, batches, strict=True) if each.keyword}
    try:
        output = model(*plain, **named)
    except (Exception, SystemExit) as error:  # whatever the model does with a shape that it does not take
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    in_tuple = isinstance(output, tuple | list) and len(output) > 0
    output = output[0] if in_tuple else output
    if not isinstance(output, torch.Tensor):
        return f"forward returned a {type(output).__name__}; it must return a tensor, or a tuple that begins with one"
    if not output.requires_grad:
        return "what forward returned does not depend on the model's parameters"
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
    if given:
        floats = [given]
    else:
        sizes = list(dict.fromkeys([*_told_sizes(name, fields), *_layer_sizes(layers), *_USUAL]))[:12]
        vectors, sequences = [(size,) for size in sizes], [(_LENGTH, size) for size in sizes]
        ordered = [sequences, vectors] if task in ("ranking", "transformer") else [vectors, sequences]
        floats = [*_grids(layers), *ordered[0], *ordered[1]]
    tokens = [(given or (_LENGTH,), count) for count in dict.fromkeys(embeddings)]
    ordered = [(shape, None) for shape in floats]
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
    if isinstance(first, nn.Conv2d):
        return [(first.in_channels, side, side) for side in _IMAGE_SIDES]
    if isinstance(first, nn.Conv1d):
        return [(first.in_channels, length) for length in _SIGNAL_LENGTHS]
    return [(first.in_channels, 8, 16, 16)] if isinstance(first, nn.Conv3d) else []


def _size(each: Input) -> str:
    shape = shape_text(each.shape)
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
