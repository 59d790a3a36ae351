"""Log-probabilities of target tokens from hidden states, without ever keeping the logits of more than a few tokens.

With a vocabulary of 49,152 the logits of 2,000 tokens, their log-softmax and its gradient are 1.2 GB.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.causal_lm import CausalLM
from model.lora import AdapterRows

CHUNK_NUMBERS = 2**23  # logits that are there at a time: 32 MB


class LogitModel(Protocol):
    """A model that makes logits of hidden states."""

    def logits(self, hidden: Tensor, adapters: AdapterRows | None = None) -> Tensor:
        """Return the logits (N, vocabulary) of hidden states (N, width)."""


def target_logprobs(
    model: LogitModel,
    hidden: Tensor,
    targets: Tensor,
    adapters: AdapterRows | None = None,
    chunk_numbers: int = CHUNK_NUMBERS,
) -> Tensor:
    """Return the log-probabilities of targets at temperature 1 over the whole vocabulary.

    Args:
        model: model that the hidden states are of.
        hidden: (N, width) hidden states of any tokens: of those only that a loss needs.
        targets: (N,) int64 token that follows each; (N, K) for several.
        adapters: the adapter of each row, its lengths counting the tokens in `hidden`; None for the model as it is.
        chunk_numbers: logits that may be there at a time.

    Returns:
        float32 of the shape of `targets`.
    """
    if not len(hidden):
        return hidden.new_zeros(targets.shape, dtype=torch.float32) + 0 * hidden.sum()
    columns = targets if targets.dim() == 2 else targets[:, None]
    changed = adapters is not None and any(
        part.site.target == "unembedding" for adapter in adapters.adapters if adapter for part in adapter.parts()
    )
    if isinstance(model, CausalLM) and not changed and not _needs_grad(model.unembedding()):
        chunk = max(1, chunk_numbers // model.shape.vocabulary)
        found: Tensor = _FrozenUnembedding.apply(hidden, model.unembedding(), columns, chunk, _needs_grad(hidden))
    else:
        found = _recomputed(model, hidden, columns, adapters, chunk_numbers)
    return found if targets.dim() == 2 else found[:, 0]


def _needs_grad(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


class _FrozenUnembedding(torch.autograd.Function):
    """For an unembedding that is not trained.

    The gradient of log p(target) by the hidden state is the target's row of the unembedding less the mean row under p.
    That mean, as small as the hidden state, is made while the logits are there; so backward needs no logits, neither
    kept nor computed again.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, columns: Tensor, chunk: int, needs_grad: bool) -> Tensor:
        found = torch.empty(columns.shape, device=hidden.device)
        means = torch.empty_like(hidden) if needs_grad else None
        for begin in range(0, len(hidden), chunk):
            part = slice(begin, begin + chunk)
            logits = (hidden[part] @ weight.t()).float()
            top = logits.amax(1, keepdim=True)
            chosen = logits.gather(1, columns[part]) - top
            total = logits.sub_(top).exp_().sum(1, keepdim=True)
            found[part] = chosen - total.log()
            if means is not None:
                means[part] = logits.div_(total).to(hidden.dtype) @ weight
        if means is not None:
            ctx.save_for_backward(weight, columns, means)
        return found

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, columns, means = ctx.saved_tensors
        into = means.float() * -gradient.sum(1, keepdim=True)
        for column in range(columns.shape[1]):
            into.addcmul_(weight[columns[:, column]].float(), gradient[:, column : column + 1])
        return into.to(means.dtype), None, None, None, None


def _recomputed(
    model: LogitModel, hidden: Tensor, columns: Tensor, adapters: AdapterRows | None, chunk_numbers: int
) -> Tensor:
    """Make logits by chunks, and once more in backward: for an unembedding that is trained."""
    vocabulary = model.logits(hidden[:1].detach(), None if adapters is None else _cut(adapters, 0, 1)).shape[1]
    chunk = max(1, chunk_numbers // vocabulary)
    done = []
    for begin in range(0, len(hidden), chunk):
        end = min(begin + chunk, len(hidden))
        chosen = None if adapters is None else _cut(adapters, begin, end)

        def of_chunk(states: Tensor, wanted: Tensor, chosen: AdapterRows | None = chosen) -> Tensor:
            return model.logits(states, chosen).float().log_softmax(1).gather(1, wanted)

        part = (hidden[begin:end], columns[begin:end])
        done.append(checkpoint(of_chunk, *part, use_reentrant=False) if torch.is_grad_enabled() else of_chunk(*part))
    return torch.cat(done)


def _cut(adapters: AdapterRows, begin: int, end: int) -> AdapterRows:
    """Return the adapters of the tokens from `begin` to `end`."""
    lengths, start = [], 0
    for length in adapters.lengths:
        lengths.append(max(0, min(end, start + length) - max(begin, start)))
        start += length
    return adapters.with_lengths(lengths)
