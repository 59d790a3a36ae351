"""Log-probabilities of targets by chunks against whole logits, with gradients, and the memory that they save."""

import pytest
import torch

from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.lora import LoraBank, LoraSettings
from model.target_logprobs import target_logprobs

SHAPE = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=128)


def drawn(**changes) -> CausalLM:
    return CausalLM(DecoderShape(**(vars(SHAPE) | changes))).draw(0, std=0.2)


def numbers(*shape, seed=0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def targets_of(*shape) -> torch.Tensor:
    return torch.randint(0, 261, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
@pytest.mark.parametrize("rows_at_a_time", [1, 7, 50, 500])
def test_chunks_equal_whole_logits_in_float64(shape, rows_at_a_time):
    model = drawn().requires_grad_(False)
    hidden, targets, given = numbers(50, 32).requires_grad_(), targets_of(*shape), numbers(*shape, seed=1)
    if targets.dim() == 2:
        targets[:, 1] = targets[:, 0]  # one target twice
    found = target_logprobs(model, hidden, targets, chunk_numbers=261 * rows_at_a_time)
    (gradient,) = torch.autograd.grad((found * given).sum(), hidden)

    exact = hidden.detach().double().requires_grad_()
    columns = targets if targets.dim() == 2 else targets[:, None]
    wanted = (exact @ model.unembedding().double().t()).log_softmax(1).gather(1, columns).reshape(shape)
    (exact_gradient,) = torch.autograd.grad((wanted * given).sum(), exact)
    assert found.dtype == torch.float32 and (found - wanted).abs().max() < 1e-6 * (1 + wanted.abs().max())
    assert (gradient - exact_gradient).abs().max() < 1e-6 * (1 + exact_gradient.abs().max())
    with torch.no_grad():
        assert torch.equal(target_logprobs(model, hidden, targets, chunk_numbers=261 * rows_at_a_time), found)


@pytest.mark.parametrize("rows_at_a_time", [4, 500])
def test_an_unembedding_that_is_trained_gets_its_gradient(rows_at_a_time):
    model = drawn()
    hidden, targets = numbers(30, 32).requires_grad_(), targets_of(30)
    inputs = [hidden, model.lm_head.weight]
    found = torch.autograd.grad(target_logprobs(model, hidden, targets, None, 261 * rows_at_a_time).sum(), inputs)
    whole = model.logits(hidden).log_softmax(1)[torch.arange(30), targets].sum()
    for got, wanted in zip(found, torch.autograd.grad(whole, inputs), strict=True):
        assert (got - wanted).abs().max() < 1e-5 and wanted.abs().max() > 0.1


@pytest.mark.parametrize("rows_at_a_time", [4, 500])
def test_adapters_of_the_unembedding_are_used_and_trained(rows_at_a_time):
    model = drawn()
    bank = LoraBank(model)
    for seed, name in enumerate(("a", "b")):
        adapter = bank.create(name, LoraSettings(rank=2, seed=seed, targets=("unembedding",)))
        with torch.no_grad():
            adapter.lora_B["lm_head"].copy_(numbers(1, 261, 2, seed=seed))
    hidden, targets = numbers(30, 32).requires_grad_(), targets_of(30)
    rows = bank.rows(["a", None, "b"], [9, 6, 15])
    inputs = [hidden, *bank["a"].parameters(), *bank["b"].parameters()]
    found = target_logprobs(model, hidden, targets, rows, 261 * rows_at_a_time)
    whole = model.logits(hidden, rows).log_softmax(1)[torch.arange(30), targets]
    assert (found - whole).abs().max() < 1e-5
    gradients = torch.autograd.grad(found.sum(), inputs)
    for got, wanted in zip(gradients, torch.autograd.grad(whole.sum(), inputs), strict=True):
        assert (got - wanted).abs().max() < 1e-4 and wanted.abs().max() > 0.01
    with torch.no_grad():
        again = target_logprobs(model, hidden, targets, rows, 261 * rows_at_a_time)
        assert (again - whole).abs().max() < 1e-5


def test_low_precision_and_no_token():
    model = CausalLM(SHAPE, dtype=torch.bfloat16).draw(0, std=0.2).requires_grad_(False)
    hidden, targets = numbers(20, 32).bfloat16().requires_grad_(), targets_of(20)
    found = target_logprobs(model, hidden, targets)
    wanted = model.logits(hidden).float().log_softmax(1)[torch.arange(20), targets]
    assert found.dtype == torch.float32 and (found - wanted).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(found.sum(), hidden)
    (exact,) = torch.autograd.grad(wanted.sum(), hidden)
    assert gradient.dtype == torch.bfloat16 and (gradient - exact).abs().max() < 0.05 * exact.abs().max()
    none = target_logprobs(model, hidden[:0], targets[:0])
    assert none.shape == (0,) and torch.autograd.grad(none.sum(), hidden, allow_unused=True)


def test_no_logits_are_kept_for_backward():
    """What backward keeps is of the hidden states' size, not of the logits'."""
    model = drawn(vocabulary=5000).requires_grad_(False)
    tokens = torch.arange(64)
    hidden = model.hidden(tokens, PackedRows.of([64])).detach().requires_grad_()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        target_logprobs(model, hidden, tokens, chunk_numbers=5000 * 4)
    own = [size for size in kept if size != model.unembedding().numel()]
    assert sum(own) <= 64 * 32 + 64 < 64 * 5000 / 10
