"""The likeliest tokens of a teacher at each token of answers: by forward passes, the shared beginning read once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm.base_model import BaseModel
from llm.prefix_cache import common_length
from model.key_value_cache import KeyValueCache, SharedPrefix

_LOGITS_AT_ONCE = 128  # tokens whose logits are there at a time
_PIECE = 512  # tokens of the beginning that are read at a time


def likeliest_of_answers(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    k: int,
    pass_tokens: int = 2048,
    tell: Callable[[int], None] = lambda _: None,
) -> list[tuple[Tensor, Tensor]]:
    """Return the k likeliest tokens of a model in place of each token of answers.

    Args:
        base: the model, without an adapter.
        prompts: of each answer the ids before it, one or more.
        answers: ids of each answer, one or more.
        k: how many tokens; all where the vocabulary has fewer.
        pass_tokens: tokens behind the shared beginning that go through the model together; a longer row goes alone.
        tell: function that is told how many answers are done.

    Returns:
        Of each answer the ids (L, k) int32 and their log-probabilities (L, k) float32 at temperature 1 over the whole
            vocabulary, the likeliest first, on the CPU.
    """
    if not answers:
        return []
    k = min(k, base.vocabulary)
    shared = common_beginning(prompts)
    order = sorted(range(len(answers)), key=lambda number: len(prompts[number]) + len(answers[number]))
    found: dict[int, tuple[Tensor, Tensor]] = {}
    with torch.inference_mode():
        cache: KeyValueCache = base.model.new_cache()  # type: ignore[assignment]  # or what has its methods
        prefix = _read_beginning(base, cache, prompts[0][:shared]) if shared else None
        batch: list[int] = []
        tokens = 0
        for number in order:
            length = len(prompts[number]) - shared + len(answers[number]) - 1
            if batch and tokens + length > pass_tokens:
                found |= _pass(base, cache, prefix, [(n, prompts[n][shared:], answers[n]) for n in batch], k)
                tell(len(found))
                batch, tokens = [], 0
            batch.append(number)
            tokens += length
        found |= _pass(base, cache, prefix, [(n, prompts[n][shared:], answers[n]) for n in batch], k)
        tell(len(found))
    # What inference mode made can't be saved for a backward pass.
    return [(found[number][0].clone(), found[number][1].clone()) for number in range(len(answers))]


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with; one of each at least is left after them."""
    import numpy

    arrays = [numpy.asarray(prompt) for prompt in prompts]
    return min(min(common_length(arrays[0], each) for each in arrays), min(map(len, arrays)) - 1)


def _read_beginning(base: BaseModel, cache: KeyValueCache, ids: Sequence[int]) -> SharedPrefix:
    slot, device = cache.take(), next(base.model.parameters()).device
    for begin in range(0, len(ids), _PIECE):
        piece = torch.tensor(list(ids[begin : begin + _PIECE]), device=device)
        base.model.hidden(piece, cache.rows([slot], [len(piece)]), None, cache)  # type: ignore[arg-type]
    prefix = cache.share(slot)
    cache.free(slot)
    return prefix


def _pass(
    base: BaseModel,
    cache: KeyValueCache,
    prefix: SharedPrefix | None,
    rows: Sequence[tuple[int, Sequence[int], Sequence[int]]],
    k: int,
) -> dict[int, tuple[Tensor, Tensor]]:
    device = next(base.model.parameters()).device
    slots = [cache.take(prefix) for _ in rows]
    read = [[*prompt, *answer[:-1]] for _, prompt, answer in rows]
    lengths = [len(ids) for ids in read]
    tokens = torch.tensor([token for ids in read for token in ids], device=device)
    hidden = base.model.hidden(tokens, cache.rows(slots, lengths), None, cache)  # type: ignore[arg-type]
    for slot in slots:
        cache.free(slot)
    places: list[int] = []
    at = 0
    for (_, _, answer), length in zip(rows, lengths, strict=True):
        places += range(at + length - len(answer), at + length)
        at += length
    ids, logprobs = [], []
    for states in hidden[torch.tensor(places, device=device)].split(_LOGITS_AT_ONCE):
        best = base.model.logits(states).float().log_softmax(-1).topk(k)
        ids.append(best.indices.to(torch.int32).cpu())  # synchronisation
        logprobs.append(best.values.cpu())
    sizes = [len(answer) for _, _, answer in rows]
    parts = zip(torch.cat(ids).split(sizes), torch.cat(logprobs).split(sizes), strict=True)
    return {number: pair for (number, _, _), pair in zip(rows, parts, strict=True)}
