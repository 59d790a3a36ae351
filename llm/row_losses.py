"""The loss of each row, of each of its words, and what the words of a prompt do to the answer's loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data.token_batches import pack_rows
from data.token_row import TokenRow
from llm.hub_model import HubCausalLM
from model.adapted_causal_lm import logprobs_where
from model.attention_weights import AttentionWeights
from model.causal_lm import CausalLM, PackedRows
from model.lora import AdapterRows, LoraAdapter
from model.target_logprobs import target_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PASS_TOKENS = 2048  # tokens that go through the model together; a longer row goes alone
_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what a part of a letter is decoded to


@dataclass(frozen=True)
class Attribution:
    """What each token that a model reads does to the loss of the tokens that are trained on.

    Attributes:
        scores: (L,) float32, by how many nats each token of the row lowers the mean loss, compared with a blank in its
            place; 0 for tokens that no blank is put in place of.
        lowered: by how much all of them lower it together, as measured: what the scores should add up to.
    """

    scores: Tensor
    lowered: float


@dataclass(frozen=True)
class Word:
    """Tokens that are read as a word.

    Attributes:
        text: the word.
        begin: number of its first token in the row.
        end: number after its last.
        kind: `answer` for what is trained on, `asked` for words of messages, `template` for what is around them.
    """

    text: str
    begin: int
    end: int
    kind: str


def token_losses(
    model: CausalLM | HubCausalLM, adapter: LoraAdapter | None, rows: Sequence[TokenRow], device: torch.device
) -> list[Tensor]:
    """Return the negative log-likelihood of each token of rows that is trained on.

    Args:
        model: the model.
        adapter: adapter over it; None for the model as it is.
        rows: rows with a token to predict.
        device: where the model is.

    Returns:
        Of each row (N,) float32 on the CPU, in nats; a host-device synchronisation for each pass.
    """
    found: dict[int, Tensor] = {}
    for numbers in _passes([len(row.ids) for row in rows]):
        batch = pack_rows([rows[number] for number in numbers])
        packed = PackedRows.of(batch.rows.lengths, device=device)
        tensors = batch.targets.to(device), batch.places.to(device)
        with torch.inference_mode():
            logprobs = logprobs_where(model, batch.tokens.to(device), packed, *tensors, adapter)
        parts = (-logprobs).cpu().split([int((rows[number].weights[1:] != 0).sum()) for number in numbers])
        found |= {number: part.clone() for number, part in zip(numbers, parts, strict=True)}
    return [found[number] for number in range(len(rows))]


def _passes(lengths: Sequence[int]) -> list[list[int]]:
    """Return the numbers of rows that go through a model together, rows of like length side by side."""
    passes: list[list[int]] = []
    tokens = 0
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not passes or tokens + lengths[number] > _PASS_TOKENS:
            passes.append([])
            tokens = 0
        passes[-1].append(number)
        tokens += lengths[number]
    return passes


def attribution(
    model: CausalLM,
    adapter: LoraAdapter | None,
    row: TokenRow,
    asked: Tensor,
    blank: int,
    steps: int,
    device: torch.device,
) -> Attribution:
    """Return integrated gradients of a row's mean loss by the embeddings of what is asked.

    Each embedding goes in a straight line from that of a blank to its own; the scores add up to what all of them change
    together, but for what `steps` points miss of the line.

    Args:
        model: the model.
        adapter: adapter over it; None for the model as it is.
        row: the row.
        asked: (L,) bool, tokens whose embeddings go from a blank's to their own; see `asked_tokens`.
        blank: id of the token that stands for nothing, such as a space.
        steps: points on the line.
        device: where the model is.
    """
    batch = pack_rows([row])
    length = len(batch.tokens)
    embedding = model.model.embed_tokens.weight
    own = embedding[batch.tokens.to(device)].float()
    from_blank = torch.where(asked[:length, None].to(device), own - embedding[blank].float(), 0.0)
    places, targets = batch.places.to(device), batch.targets.to(device)
    rows = PackedRows.of([length], device=device)

    def loss_of(states: Tensor) -> Tensor:
        adapters = None if adapter is None else AdapterRows((adapter,), (length,))
        hidden = model.hidden(batch.tokens.to(device), rows, adapters, states=states.to(embedding.dtype))
        chosen = None if adapter is None else AdapterRows((adapter,), (len(places),))
        return -target_logprobs(model, hidden[places], targets, chosen).mean()

    with torch.no_grad():
        lowered = (loss_of(own - from_blank) - loss_of(own)).item()  # synchronisation
    total = torch.zeros_like(own)
    for step in range(steps):
        share = (step + 0.5) / steps
        states = (own - (1 - share) * from_blank).requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss_of(states), states)
        total += gradient
    scores = -(total / steps * from_blank).sum(1)
    return Attribution(torch.cat([scores.cpu(), torch.zeros(1)]), lowered)  # synchronisation


@torch.inference_mode()
def attention_received(model: CausalLM, adapter: LoraAdapter | None, row: TokenRow, device: torch.device) -> Tensor:
    """Return how much the tokens that predict a row's answer look at each token of the row.

    Args:
        model: the model.
        adapter: adapter over it; None for the model as it is.
        row: the row.
        device: where the model is.

    Returns:
        (L,) float32 on the CPU, on average over these tokens, heads and layers; it adds up to 1. A host-device
        synchronisation.
    """
    batch = pack_rows([row])
    length = len(batch.tokens)
    watch = AttentionWeights(batch.places.to(device))
    adapters = None if adapter is None else AdapterRows((adapter,), (length,))
    model.hidden(batch.tokens.to(device), PackedRows.of([length], device=device), adapters, watch)
    return torch.cat([watch.received.cpu(), torch.zeros(1)])


def asked_tokens(tokenizer: "PreTrainedTokenizerBase", row: TokenRow, texts: Sequence[str]) -> Tensor:
    """Find the tokens of messages among those of the template.

    Args:
        tokenizer: tokenizer of the row's ids.
        row: the row.
        texts: what its messages say, in their order, but for those that are trained on.

    Returns:
        (L,) bool. A text that the template writes otherwise is not found.
    """
    ids = row.ids.tolist()
    ends = [len(_decoded(tokenizer, ids[:end])) for end in range(1, len(ids) + 1)]
    whole, at = _decoded(tokenizer, ids), 0
    found = torch.zeros(len(ids), dtype=torch.bool)
    for text in texts:
        begin = whole.find(text, at) if text else -1
        if begin >= 0:
            at = begin + len(text)
            starts = [0, *ends[:-1]]
            found |= torch.tensor([start < at and end > begin for start, end in zip(starts, ends, strict=True)])
    return found & (row.weights == 0)


def words_of(tokenizer: "PreTrainedTokenizerBase", row: TokenRow, asked: Tensor) -> list[Word]:
    """Cut a row into words: each begins with a space, or at the border of a special token, a message or an answer.

    Args:
        tokenizer: tokenizer of the row's ids.
        row: the row.
        asked: (L,) bool, tokens of messages.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = row.ids.tolist()
    kinds = ["answer" if weight else "asked" if mine else "template"
             for weight, mine in zip(row.weights.tolist(), asked.tolist(), strict=True)]  # fmt: skip
    words: list[Word] = []
    begin = 0
    for end in range(1, len(ids) + 1):
        text = _decoded(tokenizer, ids[begin:end])
        if end < len(ids) and kinds[end] == kinds[begin]:
            apart = ids[end] in special or ids[end - 1] in special
            if text.endswith(_BROKEN) or not (apart or _decoded(tokenizer, [ids[end]])[:1].isspace()):
                continue
        words.append(Word(text, begin, end, kinds[begin]))
        begin = end
    return words


def _decoded(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
