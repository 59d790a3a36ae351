"""Rows of several adapters through a frozen model together: log-probabilities, losses, gradients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm.hub_model import HubCausalLM
from model.causal_lm import CausalLM, PackedRows
from model.lora import AdapterRows, LoraAdapter
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


class LossWork:
    """A request under way: what the passes so far have found.

    Args:
        request: the request.
        adapter: its adapter; None for the base model.
    """

    def __init__(self, request: LossRequest, adapter: LoraAdapter | None) -> None:
        self.request, self.adapter = request, adapter
        self.gradients: list[Tensor] | None = None  # of the adapter's parameters, in their order
        self._logprobs: dict[int, Tensor] = {}
        self._losses: list[Tensor] = []
        self._trained_tokens = 0

    def note(self, numbers: Sequence[int], logprobs: Sequence[Tensor], loss: Tensor) -> None:
        """Take what a pass has found: of some rows the log-probabilities (T, K), and the sum of their losses."""
        for number, found in zip(numbers, logprobs, strict=True):
            row = self.request.rows[number]
            self._logprobs[number] = found[:, : row.targets[0].numel()].reshape(row.targets.shape)
            self._trained_tokens += int(has_effect(self.request.loss, row.inputs).sum())
        self._losses.append(loss.detach())

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients of a pass."""
        known = self.gradients
        self.gradients = list(gradients) if known is None else [a + b for a, b in zip(known, gradients, strict=True)]

    def result(self) -> LossResult:
        """Return what all passes have found."""
        logprobs = [self._logprobs[number] for number in range(len(self.request.rows))]
        loss = torch.stack(self._losses).double().sum().item()  # synchronisation
        return LossResult(loss, logprobs, self._trained_tokens)

    def wrong(self) -> str | None:
        """Say which number is not finite; None where all are. A host-device synchronisation."""
        for number, found in sorted(self._logprobs.items()):
            if not found.isfinite().all():
                wrong = ~found.isfinite()
                place, value = int(wrong.nonzero()[0, 0]), found[wrong][0].item()
                return f"the log-probability of row {number}, token {place} is {value}"
        if not torch.stack(self._losses).isfinite().all():
            return "the loss is not finite (a ratio of probabilities too large?)"
        if self.gradients is not None and self.adapter is not None:
            name = first_not_finite([name for name, _ in self.adapter.named_parameters()], self.gradients)
            return f"the gradient of {name} is not finite" if name else None
        return None


def run_passes(model: CausalLM | HubCausalLM, work: Sequence[LossWork], pass_tokens: int, device: torch.device) -> None:
    """Do several requests; what is found is noted in each.

    Args:
        model: the frozen model.
        work: the requests, of which no two train the same adapter.
        pass_tokens: tokens that go through the model together; a longer row goes alone.
        device: where the model is.
    """
    for places in _passes(work, pass_tokens):
        _pass(model, [(work[number], rows) for number, rows in places], device)


def _passes(work: Sequence[LossWork], pass_tokens: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield the rows of each pass: of requests their numbers and those of their rows. Long rows go together."""
    order = []
    for number, each in enumerate(work):
        lengths = [len(row.tokens) for row in each.request.rows]
        order += [(number, row) for row in sorted(range(len(lengths)), key=lambda row: -lengths[row])]
    together: list[tuple[int, list[int]]] = []
    tokens = 0
    for number, row in order:
        length = len(work[number].request.rows[row].tokens)
        if together and tokens + length > pass_tokens:
            yield together
            together, tokens = [], 0
        if not together or together[-1][0] != number:
            together.append((number, []))
        together[-1][1].append(row)
        tokens += length
    if together:
        yield together


def _pass(model: CausalLM | HubCausalLM, parts: Sequence[tuple[LossWork, list[int]]], device: torch.device) -> None:
    rows = [each.request.rows[number] for each, numbers in parts for number in numbers]
    owners = [each for each, numbers in parts for _ in numbers]
    lengths = [len(row.tokens) for row in rows]
    adapters = AdapterRows(tuple(each.adapter for each in owners), tuple(lengths))
    # Where a log-probability has no effect on a loss, it needs no gradient: half the work.
    effect = [has_effect(each.request.loss, row.inputs).cpu() for each, row in zip(owners, rows, strict=True)]
    trained = [mask & each.request.backward for each, mask in zip(owners, effect, strict=True)]
    read = [mask | each.request.all_logprobs for each, mask in zip(owners, effect, strict=True)]
    training = [each for each, _ in parts if each.request.backward]
    with torch.set_grad_enabled(bool(training)):
        tokens = torch.cat([row.tokens for row in rows]).to(device, torch.int64)
        hidden = model.hidden(tokens, PackedRows.of(lengths, device=device), adapters)
        targets = _columns([row.targets for row in rows]).to(device, torch.int64)
        found = torch.zeros(targets.shape, device=device)
        for with_gradient in (True, False):
            chosen = trained if with_gradient else [
                seen & ~mask for seen, mask in zip(read, trained, strict=True)
            ]  # fmt: skip
            at = torch.cat(chosen).nonzero()[:, 0].to(device)
            if not len(at):
                continue
            own = adapters.with_lengths([int(mask.sum()) for mask in chosen])
            with torch.set_grad_enabled(with_gradient):
                states = hidden[at] if with_gradient else hidden.detach()[at]
                logprobs = target_logprobs(model, states, targets[at], own)
            found = found.index_copy(0, at, logprobs)
        split = list(found.split(lengths))
        losses, begin = [], 0
        for each, numbers in parts:
            end = begin + len(numbers)
            losses.append(_loss(each.request, rows[begin:end], split[begin:end]))
            begin = end
        if training:
            _add_gradients([each for each, _ in parts], losses)
    on_host = found.detach().cpu().split(lengths)  # synchronisation
    begin = 0
    for (each, numbers), loss in zip(parts, losses, strict=True):
        each.note(numbers, on_host[begin : begin + len(numbers)], loss)
        begin += len(numbers)


def _loss(request: LossRequest, rows: Sequence[LossRow], logprobs: Sequence[Tensor]) -> Tensor:
    """Return the loss of some rows of a request, from their log-probabilities (T, K)."""
    found = torch.cat(list(logprobs))
    inputs = {name: _columns([row.inputs[name].float() for row in rows]).to(found.device)
              for name in LOSS_INPUTS[request.loss]}  # fmt: skip
    inputs = {name: torch.nn.functional.pad(value, (0, found.shape[1] - value.shape[1]))
              for name, value in inputs.items()}  # fmt: skip
    if request.loss != "cross_entropy":
        return token_loss(request.loss, found[:, 0], {name: value[:, 0] for name, value in inputs.items()},
                          request.config)  # fmt: skip
    return token_loss(request.loss, found, inputs, request.config)


def _add_gradients(work: Sequence[LossWork], losses: Sequence[Tensor]) -> None:
    training = [(each, loss) for each, loss in zip(work, losses, strict=True) if each.request.backward]
    parameters = [list(each.adapter.parameters()) if each.adapter else [] for each, _ in training]
    total = sum((loss for _, loss in training), torch.zeros((), device=losses[0].device))
    wanted = [parameter for own in parameters for parameter in own]
    some = total.requires_grad  # else no token of these rows has an effect
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True) if some else (None,) * len(wanted))
    for (each, _), own in zip(training, parameters, strict=True):
        gradients = [next(found) for _ in own]
        each.add([torch.zeros_like(parameter) if gradient is None else gradient
                  for parameter, gradient in zip(own, gradients, strict=True)])  # fmt: skip


def _columns(tensors: Sequence[Tensor]) -> Tensor:
    """Lay tensors (T,) and (T, K) of several K end to end: (sum of T, largest K), 0 where there is nothing."""
    wide = [each if each.dim() == 2 else each[:, None] for each in tensors]
    most = max(each.shape[1] for each in wide)
    return torch.cat([torch.nn.functional.pad(each, (0, most - each.shape[1])) for each in wide])


def first_not_finite(names: Sequence[str], tensors: Sequence[Tensor]) -> str | None:
    """Return the name of the first tensor with a number that is not finite. A host-device synchronisation."""
    if torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
        return None
    return next(name for name, tensor in zip(names, tensors, strict=True) if not tensor.isfinite().all())
