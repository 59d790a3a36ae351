"""Rows of several adapters through a frozen model together: log-probabilities, losses, gradients.

On a CPU a request gets the bits that it gets alone, whoever shares its passes. For its rows are cut into the same
pieces, each matrix product and each sum is of one request's rows, and whatever else the pass does treats each number or
each row for itself. What is shared is the rest: calls, and the memory's and the interpreter's time for them, which is
most of what a small request takes. On other devices products are of the whole pass, and numbers differ by rounding.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from llm.hub_model import HubCausalLM
from model.causal_lm import CausalLM, PackedRows
from model.lora import AdapterRows, LoraAdapter, LoraGradients
from model.target_logprobs import target_logprobs
from model.token_losses import LOSS_INPUTS, has_effect, token_loss


@dataclass(frozen=True)
class LossRow:
    """A row of tokens with what is to be predicted.

    Attributes:
        tokens: (T,) int64, what the model reads.
        targets: (T,) int64, what follows each token; (T, K) for several that count.
        inputs: what the loss takes (`model.token_losses.LOSS_INPUTS`), by name, float32 of the shape of `targets`;
            others are not looked at.
    """

    tokens: Tensor
    targets: Tensor
    inputs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LossRequest:
    """Rows that one adapter is to be measured or trained on.

    Attributes:
        adapter: name of an adapter, or, where nothing is trained, a version; None for the base model.
        rows: the rows.
        loss: name of the loss.
        config: settings of the loss that differ from the defaults.
        backward: whether gradients are made and added to those there are.
        all_logprobs: whether log-probabilities are wanted that have no effect on the loss too, such as those of a
            prompt; without, they are 0, and their logits are not made.
    """

    adapter: str | None
    rows: Sequence[LossRow]
    loss: str = "cross_entropy"
    config: Mapping[str, float] | None = None
    backward: bool = False
    all_logprobs: bool = True


@dataclass(frozen=True)
class LossResult:
    """What became of a `LossRequest`.

    Attributes:
        loss: the loss, summed over the tokens of all rows.
        logprobs: of each row the log-probabilities of its targets, float32 on the CPU, of their shape.
        trained_tokens: tokens that have an effect on the loss.
    """

    loss: float
    logprobs: list[Tensor]
    trained_tokens: int


@dataclass(frozen=True)
class PartResult:
    """What a pass has found of a request's rows.

    Attributes:
        logprobs: (T, K) log-probabilities of the targets, rows end to end; 0 where they are not wanted.
        loss: the rows' loss, summed.
        trained_tokens: tokens that have an effect on it.
    """

    logprobs: Tensor
    loss: Tensor
    trained_tokens: int


class LossWork:
    """A request under way: what the passes so far have found.

    Args:
        request: the request.
        adapter: its adapter; None for the base model.
    """

    def __init__(self, request: LossRequest, adapter: LoraAdapter | None) -> None:
        self.request, self.adapter = request, adapter
        self._logprobs: dict[int, Tensor] = {}
        self._whole: list[Tensor] = []  # the same, of each pass
        self._losses: list[Tensor] = []
        self._trained_tokens = 0

    def note(self, numbers: Sequence[int], found: "PartResult") -> None:
        """Take what a pass has found of some rows."""
        rows = [self.request.rows[number] for number in numbers]
        logprobs = found.logprobs.detach().cpu()  # synchronisation
        for number, row, own in zip(numbers, rows, logprobs.split([len(row.tokens) for row in rows]), strict=True):
            self._logprobs[number] = own[:, : row.targets[0].numel()].reshape(row.targets.shape)
        self._whole.append(logprobs)
        self._losses.append(found.loss.detach())
        self._trained_tokens += found.trained_tokens

    @cached_property
    def gradients(self) -> LoraGradients | None:
        """Where the adapter's gradients are added up, from the first pass on; None where it is not trained."""
        return LoraGradients(self.adapter) if self.request.backward and self.adapter is not None else None

    @property
    def complete(self) -> bool:
        """Whether all rows have been through the model."""
        return len(self._logprobs) == len(self.request.rows)

    def result(self) -> LossResult:
        """Return what all passes have found."""
        logprobs = [self._logprobs[number] for number in range(len(self.request.rows))]
        loss = torch.stack(self._losses).double().sum().item()  # synchronisation
        return LossResult(loss, logprobs, self._trained_tokens)

    def wrong(self) -> str | None:
        """Say which number is not finite; None where all are. A host-device synchronisation."""
        sound = all(all_finite(each) for each in self._whole)
        for number, found in () if sound else sorted(self._logprobs.items()):
            if not found.isfinite().all():
                wrong = ~found.isfinite()
                place, value = int(wrong.nonzero()[0, 0]), found[wrong][0].item()
                return f"the log-probability of row {number}, token {place} is {value}"
        if not torch.stack(self._losses).isfinite().all():
            return "the loss is not finite (a ratio of probabilities too large?)"
        if self.gradients is None or self.adapter is None or all_finite(self.gradients.flat):
            return None
        name = first_not_finite([name for name, _ in self.adapter.named_parameters()], self.gradients.tensors())
        return f"the gradient of {name} is not finite"


def run_passes(
    model: CausalLM | HubCausalLM, work: Sequence[LossWork], pass_tokens: int, device: torch.device
) -> Iterator[None]:
    """Do several requests; what is found is noted in each.

    Args:
        model: the frozen model.
        work: the requests, of which no two train the same adapter.
        pass_tokens: tokens that go through the model together; a longer row goes alone.
        device: where the model is.

    Yields:
        Nothing, after each pass: something else may be done then.
    """
    work = sorted(
        work, key=lambda each: sum(len(row.tokens) for row in each.request.rows)
    )  # who asks little waits little
    passes = [
        each for backward in (False, True)  # apart: without gradients other, faster steps are taken
        for each in _passes([part for part in work if part.request.backward is backward], pass_tokens)
    ]  # fmt: skip
    for parts in passes:
        _pass(model, parts, device)
        yield


Part = tuple[LossWork, list[int]]  # a request and numbers of rows of it


def _passes(work: Sequence[LossWork], pass_tokens: int) -> Iterator[list[Part]]:
    """Yield the parts of each pass: what is one pass of a request alone stays in one piece."""
    together: list[Part] = []
    tokens = 0
    for each in work:
        for numbers, length in _pieces(each.request.rows, pass_tokens):
            if together and tokens + length > pass_tokens:
                yield together
                together, tokens = [], 0
            together.append((each, numbers))
            tokens += length
    if together:
        yield together


def _pieces(rows: Sequence[LossRow], pass_tokens: int) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of rows that fit in a pass, and how many tokens they have. Long rows go together."""
    piece: list[int] = []
    tokens = 0
    for number in sorted(range(len(rows)), key=lambda row: -len(rows[row].tokens)):
        length = len(rows[number].tokens)
        if piece and tokens + length > pass_tokens:
            yield piece, tokens
            piece, tokens = [], 0
        piece.append(number)
        tokens += length
    if piece:
        yield piece, tokens


def _pass(model: CausalLM | HubCausalLM, parts: Sequence[Part], device: torch.device) -> None:
    rows = [[work.request.rows[number] for number in numbers] for work, numbers in parts]
    lengths = [[len(row.tokens) for row in each] for each in rows]
    flat = [length for each in lengths for length in each]
    backward = parts[0][0].request.backward
    adapters = AdapterRows(
        tuple(work.adapter for work, numbers in parts for _ in numbers), tuple(flat),
        tuple(len(numbers) for _, numbers in parts) if device.type == "cpu" else (), _gradients(parts),
    )  # fmt: skip
    with torch.set_grad_enabled(backward):
        tokens = torch.cat([row.tokens for each in rows for row in each]).to(device, torch.int64)
        hidden = model.hidden(tokens, PackedRows.of(flat, device=device), adapters)
        found = [_measured(model, work, own, states) for (work, _), own, states in zip(
            parts, rows, hidden.split([sum(each) for each in lengths]), strict=True)]  # fmt: skip
        if backward:
            _go_back([each.loss for each in found], _gradients(parts))
    for (work, numbers), each in zip(parts, found, strict=True):
        work.note(numbers, each)


def _measured(model: CausalLM | HubCausalLM, work: LossWork, rows: Sequence[LossRow], hidden: Tensor) -> PartResult:
    """Measure some rows of one request by their hidden states (T, width)."""
    request, device = work.request, hidden.device
    targets = _columns([row.targets for row in rows]).to(device, torch.int64)
    inputs = {name: _columns([row.inputs[name].float() for row in rows]) for name in LOSS_INPUTS[request.loss]}
    inputs = {name: functional.pad(value, (0, targets.shape[1] - value.shape[1])) for name, value in inputs.items()}
    effect = has_effect(request.loss, inputs if request.loss == "cross_entropy" else _first_columns(inputs)).cpu()
    # Where a log-probability has no effect on the loss, it needs no gradient: half the work.
    trained = effect & request.backward
    found = torch.zeros(targets.shape, device=device)
    for chosen, with_gradient in ((trained, True), ((effect | request.all_logprobs) & ~trained, False)):
        at = chosen.nonzero()[:, 0].to(device)
        if not len(at):
            continue
        own = AdapterRows((work.adapter,), (len(at),), gradients=_gradients([(work, [])]))
        with torch.set_grad_enabled(with_gradient):
            states = hidden[at] if with_gradient else hidden.detach()[at]
            logprobs = target_logprobs(model, states, targets[at], own)
        found = found.index_copy(0, at, logprobs)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    if request.loss == "cross_entropy":
        loss = token_loss(request.loss, found, inputs, request.config)
    else:
        loss = token_loss(request.loss, found[:, 0], _first_columns(inputs), request.config)
    return PartResult(found, loss, int(effect.sum()))


def _first_columns(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:, 0] for name, value in inputs.items()}


def _gradients(parts: Sequence[Part]) -> dict[LoraAdapter, LoraGradients]:
    return {work.adapter: work.gradients for work, _ in parts
            if work.adapter is not None and work.gradients is not None}  # fmt: skip


def _go_back(losses: Sequence[Tensor], gradients: Mapping[LoraAdapter, LoraGradients]) -> None:
    """Add up gradients: layers of ours do it themselves, those of other models leave it to autograd."""
    total = torch.stack(list(losses)).sum()
    if not total.requires_grad:  # no token of these rows has an effect
        return
    pairs = [pair for adapter, own in gradients.items()
             for pair in zip(adapter.parameters(), own.tensors(), strict=True)]  # fmt: skip
    sparks = [own.spark for own in gradients.values()]
    found = torch.autograd.grad(total, [*(parameter for parameter, _ in pairs), *sparks], allow_unused=True)
    for (_, gradient), more in zip(pairs, found, strict=False):
        if more is not None:
            gradient.add_(more)


def _columns(tensors: Sequence[Tensor]) -> Tensor:
    """Lay tensors (T,) and (T, K) of several K end to end: (sum of T, largest K), 0 where there is nothing."""
    if all(each.dim() == 1 for each in tensors):
        return torch.cat(list(tensors))[:, None]
    wide = [each if each.dim() == 2 else each[:, None] for each in tensors]
    most = max(each.shape[1] for each in wide)
    return torch.cat([functional.pad(each, (0, most - each.shape[1])) for each in wide])


def all_finite(tensor: Tensor) -> bool:
    """Return whether all numbers are finite. A host-device synchronisation."""
    # The norm takes one reading and no memory; it is not finite where a number isn't, or where its square is too large.
    return math.isfinite(tensor.norm().item()) or bool(tensor.isfinite().all())


def first_not_finite(names: Sequence[str], tensors: Sequence[Tensor]) -> str | None:
    """Return the name of the first tensor with a number that is not finite. A host-device synchronisation."""
    if torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
        return None
    return next(name for name, tensor in zip(names, tensors, strict=True) if not tensor.isfinite().all())
