"""What a model says of a prompt's places beside the prompt's own tokens: scores of others, and draws."""

import torch
from torch import Tensor

from llm.engine import Engine
from llm.loss_pass import LossRow
from model.causal_lm import PackedRows
from model.lora import AdapterRows
from model.target_logprobs import CHUNK_NUMBERS


def target_scores(engine: Engine, adapter: str | None, prompt: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probabilities of tokens in a prompt's places, each given what comes before it there.

    Args:
        engine: the engine; this is for its thread.
        adapter: name of an adapter or version; None for the base model.
        prompt: (N,) int64.
        targets: (N - 1, K) int64: row i is scored in the place i + 1.

    Returns:
        (N - 1, K) float32.

    Raises:
        EngineError: a token is unknown, or there is no such adapter.
    """
    if not targets.numel():
        return torch.zeros(targets.shape)
    row = LossRow(prompt[:-1], targets, {"weights": torch.zeros(targets.shape)})
    return engine.forward(adapter, [row]).logprobs[0]


def draws(
    engine: Engine, adapter: str | None, prompt: Tensor, count: int, temperature: float, seed: int | None
) -> tuple[Tensor, Tensor]:
    """Draw tokens for each of a prompt's places but the first, each given what comes before it there.

    Args:
        engine: the engine; this is for its thread.
        adapter: name of an adapter or version; None for the base model.
        prompt: (N,) int64.
        count: draws for each place, with replacement.
        temperature: what logits are divided by; 0 takes the likeliest.
        seed: the same draws for the same seed; None for others each time.

    Returns:
        (N - 1, count) int64, the tokens; (N - 1, count) float32, their log-probabilities under the model as it is.
    """
    length = len(prompt) - 1
    if length < 1:
        return torch.zeros((0, count), dtype=torch.int64), torch.zeros((0, count))
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    rows = AdapterRows((None if adapter is None else engine.bank[adapter],), (length,))
    chunk = max(1, CHUNK_NUMBERS // engine.vocabulary)
    tokens, logprobs = [], []
    with torch.inference_mode():
        inputs = prompt[:-1].to(engine.device)
        hidden = engine.base.model.hidden(inputs, PackedRows.of([length], device=engine.device), rows)
        for states in hidden.split(chunk):
            logits = engine.base.model.logits(states, rows.with_lengths([len(states)])).float().cpu()  # synchronisation
            if temperature:
                scaled = (logits / temperature - (logits / temperature).amax(1, keepdim=True)).exp()
                found = torch.multinomial(scaled, count, replacement=True, generator=generator)
            else:
                found = logits.argmax(1, keepdim=True).expand(-1, count)
            tokens.append(found)
            logprobs.append(logits.log_softmax(1).gather(1, found))
    return torch.cat(tokens).clone(), torch.cat(logprobs).clone()
