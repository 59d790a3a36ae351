"""Our decoder against transformers on the same weights, packed rows against rows alone, the cache against no cache."""

from dataclasses import replace

import pytest
import torch
from transformers_twins import T0, TWINS, twins

from model.attention_weights import AttentionWeights
from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.decoder_operations import Gated, RmsNorm, Turned
from model.lora import LoraBank, LoraSettings

LENGTHS = (5, 1, 17, 30)


def drawn(shape: DecoderShape = T0) -> CausalLM:
    """A model whose weights are large enough that every part of it shows in the logits."""
    return CausalLM(shape).draw(0, std=0.2)


def tokens_of(lengths=LENGTHS, seed=1) -> torch.Tensor:
    return torch.randint(0, 261, (sum(lengths),), generator=torch.Generator().manual_seed(seed))


def logits_of(model: CausalLM, tokens: torch.Tensor, lengths=LENGTHS) -> torch.Tensor:
    return model.logits(model.hidden(tokens, PackedRows.of(lengths)))


@pytest.mark.parametrize("name", TWINS)
def test_logits_and_gradients_are_transformers(name):
    theirs, ours = twins(name)
    tokens = tokens_of()
    found = logits_of(ours, tokens).split(list(LENGTHS))
    wanted = [theirs(row[None]).logits[0] for row in tokens.split(list(LENGTHS))]
    for mine, right in zip(found, wanted, strict=True):
        assert (mine - right).abs().max() < 1e-5 and right.std() > 0.1
    weights = torch.randn(sum(LENGTHS), 261, generator=torch.Generator().manual_seed(2))
    (torch.cat(found).log_softmax(-1) * weights).mean().backward()
    (torch.cat(wanted).log_softmax(-1) * weights).mean().backward()
    right = dict(theirs.named_parameters())
    for parameter_name, parameter in ours.named_parameters():
        assert (parameter.grad - right[parameter_name].grad).abs().max() < 1e-5, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["llama, biases, llama3 positions", "mistral, window", "qwen3"])
def test_what_tokens_look_at_is_transformers(name):
    theirs, ours = twins(name)
    theirs.set_attn_implementation("eager")
    tokens, places = tokens_of((17,)), torch.tensor([4, 11, 16])
    watch = AttentionWeights(places)
    with torch.no_grad():
        watched = ours.hidden(tokens, PackedRows.of([17]), cache=watch)
        assert torch.equal(watched, ours.hidden(tokens, PackedRows.of([17]))), "looking changes nothing"
        layers = theirs(tokens[None], output_attentions=True).attentions
    wanted = torch.stack(layers)[:, 0, :, places].mean((0, 1, 2))
    assert (watch.received - wanted).abs().max() < 1e-6 and wanted.max() > 2 * wanted.median()
    assert float(watch.received.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_packed_rows_never_see_each_other(recompute, window):
    model = drawn(replace(T0, window=window))
    model.recompute = recompute
    first, second = tokens_of((3,), 1), tokens_of((5,), 2)
    alone = logits_of(model, second, (5,)).log_softmax(-1)
    packed = logits_of(model, torch.cat([first, second]), (3, 5)).log_softmax(-1)[3:]
    assert (packed - alone).abs().max() < 1e-5
    other = logits_of(model, torch.cat([(first + 1) % 261, second]), (3, 5)).log_softmax(-1)[3:]
    assert (other - packed).abs().max() == 0
    joined = logits_of(model, torch.cat([first, second]), (8,)).log_softmax(-1)[3:]
    assert (joined - packed).abs().max() > 1e-3, "the probe sees a leak"


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 4])
def test_cache_gives_what_the_whole_row_gives(window):
    model = drawn(replace(T0, window=window))
    tokens = tokens_of()
    rows = tokens.split(list(LENGTHS))
    wanted = model.hidden(tokens, PackedRows.of(LENGTHS)).split(list(LENGTHS))
    cache = model.new_cache(slots=1, capacity=2)  # both must grow
    slots = [cache.take() for _ in rows]
    pieces = [(1, 1, 1, 9), (2, 0, 8, 1)]  # rows join and go on by several tokens, then by one each
    while True:
        lengths = pieces.pop(0) if pieces else (1, 1, 1, 1)
        ready = [(i, min(n, len(rows[i]) - cache.length(slots[i]))) for i, n in enumerate(lengths)]
        ready = [(i, n) for i, n in ready if n > 0]
        if not ready:
            break
        begins = [cache.length(slots[i]) for i, _ in ready]
        new = torch.cat([rows[i][begin : begin + n] for (i, n), begin in zip(ready, begins, strict=True)])
        packed = cache.rows([slots[i] for i, _ in ready], [n for _, n in ready])
        found = model.hidden(new, packed, cache=cache).split([n for _, n in ready])
        for (i, n), begin, states in zip(ready, begins, found, strict=True):
            assert (states - wanted[i][begin : begin + n]).abs().max() < 1e-5
    assert [cache.length(slot) for slot in slots] == list(LENGTHS)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 6])
def test_rows_after_a_shared_prefix(window):
    model = drawn(replace(T0, window=window))
    begin, other = tokens_of((11,), 5), tokens_of((4,), 6)
    cache = model.new_cache()
    first = cache.take()
    model.hidden(begin, cache.rows([first], [11]), cache=cache)
    prefix = cache.share(first)
    shorter = cache.share(first, 4)
    cache.free(first)
    plans = [(prefix, begin), (prefix, begin), (None, torch.tensor([], dtype=torch.int64)), (shorter, begin[:4])]
    slots = [cache.take(shared) for shared, _ in plans]
    ends = [torch.cat([known, row]) for (_, known), row in zip(plans, tokens_of((9, 9, 9, 9), 7).split(9), strict=True)]
    wanted = [model.hidden(row, PackedRows.of([len(row)])) for row in ends]
    for _ in range(9):
        at = [cache.length(slot) for slot in slots]
        tokens = torch.stack([row[i] for row, i in zip(ends, at, strict=True)])
        found = model.hidden(tokens, cache.rows(slots, [1] * 4), cache=cache)
        for states, right, i in zip(found, wanted, at, strict=True):
            assert (states - right[i]).abs().max() < 1e-5
    # Several tokens after a prefix, beside a row that begins, and a prefix made of a row that has one.
    late, new = cache.take(prefix), cache.take()
    found = model.hidden(torch.cat([other, other]), cache.rows([late, new], [4, 4]), cache=cache)
    after = model.hidden(torch.cat([begin, other]), PackedRows.of([15]))[11:]
    assert (found[:4] - after).abs().max() < 1e-5
    assert (found[4:] - model.hidden(other, PackedRows.of([4]))).abs().max() < 1e-5
    longer = cache.take(cache.share(late))
    assert cache.length(longer) == 15
    found = model.hidden(other, cache.rows([longer], [4]), cache=cache)
    assert (found - model.hidden(torch.cat([begin, other, other]), PackedRows.of([19]))[15:]).abs().max() < 1e-5


@torch.no_grad()
def test_freed_slots_leave_the_others_as_they_are():
    model = drawn()
    cache = model.new_cache(slots=3)
    rows = tokens_of((6, 6, 6), 8).split(6)
    slots = [cache.take() for _ in rows]
    model.hidden(torch.cat([row[:5] for row in rows]), cache.rows(slots, [5] * 3), cache=cache)
    cache.free(slots[0])
    wanted = [model.hidden(row, PackedRows.of([6]))[5] for row in rows]
    left = list(cache.slots)
    assert set(left) == set(slots[1:])
    found = model.hidden(torch.stack([rows[slots.index(slot)][5] for slot in left]), cache.rows(left, [1, 1]),
                         cache=cache)  # fmt: skip
    for slot, states in zip(left, found, strict=True):
        assert (states - wanted[slots.index(slot)]).abs().max() < 1e-5
    assert cache.take() not in slots, "a slot's number is given once"
    with pytest.raises(ValueError, match="holds no"):
        cache.begin(PackedRows.of([1], [5], [slots[1]]))


def test_rows_that_do_not_fit_are_refused():
    model = drawn()
    with pytest.raises(ValueError, match="no token"):
        PackedRows.of([3, 0])
    with pytest.raises(ValueError, match="4 tokens|rows of 3"):
        model.hidden(tokens_of((4,)), PackedRows.of([3]))
    with pytest.raises(ValueError, match="can't share 3"):
        CausalLM(replace(T0, kv_heads=3))


def test_operations_have_the_right_gradients():
    generator = torch.Generator().manual_seed(0)

    def numbers(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(Gated.apply, (numbers(3, 4), numbers(3, 4)))
    angles = torch.randn(3, 1, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Turned.apply(x, angles.cos(), angles.sin()), (numbers(3, 2, 4),))
    # Norms go through fp32, so that gradcheck's small steps can't be taken; autograd on the formula can.
    states, weight, given = numbers(5, 8), numbers(8), torch.randn(5, 8, generator=generator)
    exact = (states / (states.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight * given).sum()
    wanted = torch.autograd.grad(exact, (states, weight))
    found = torch.autograd.grad((RmsNorm.apply(states, weight, 1e-3) * given).sum(), (states, weight))
    for mine, right in zip(found, wanted, strict=True):
        assert (mine - right).abs().max() < 1e-5


def test_recomputation_changes_no_gradient_and_every_part_of_an_adapter_gets_one():
    grown = []
    for recompute in (False, True):
        model = drawn()
        model.recompute = recompute
        bank = LoraBank(model)
        adapter = bank.create("a", LoraSettings(rank=4))
        with torch.no_grad():  # else A has no gradient yet
            for name, b in adapter.lora_B.items():
                b.normal_(generator=torch.Generator().manual_seed(len(name)))
        tokens = tokens_of()
        chosen = bank.rows(["a"] * 4, LENGTHS)
        logits = model.logits(model.hidden(tokens, PackedRows.of(LENGTHS), chosen))
        logits.log_softmax(-1)[torch.arange(len(tokens)), tokens].mean().backward()
        grown.append([parameter.grad for parameter in adapter.parameters()])
        assert all(gradient.flatten(1).norm(dim=1).gt(0).all() for gradient in grown[-1])
        assert all(parameter.grad is None for parameter in model.parameters())
    for plain, again in zip(*grown, strict=True):
        assert (plain - again).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_low_precision_is_near(dtype):
    model, low = drawn(), CausalLM(T0, dtype=dtype)
    low.load_state_dict(model.state_dict())
    tokens = tokens_of()
    bank = LoraBank(low)
    adapter = bank.create("a", LoraSettings(rank=4, targets=("attention", "mlp", "unembedding")))
    rows = bank.rows(["a"] * 4, LENGTHS)
    found = low.logits(low.hidden(tokens, PackedRows.of(LENGTHS), rows), rows)
    assert found.dtype == dtype and {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    wanted = logits_of(model, tokens)
    assert (found.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean() + 0.02
    found.float().square().mean().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in adapter.parameters())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_and_follow_changes(dtype):
    model = CausalLM(replace(T0, attention_bias=True), dtype=dtype).draw(0, std=0.2)
    assert model.pack_weights() == 0, "weights that may be trained are not packed"
    bank = LoraBank(model)
    adapter = bank.create("a", LoraSettings(rank=4, targets=("attention", "mlp", "unembedding")))
    for b in adapter.lora_B.values():
        b.normal_(0, 0.2, generator=torch.Generator().manual_seed(4))
    tokens, rows, chosen = tokens_of((3, 5)), PackedRows.of((3, 5)), bank.rows(["a", None], (3, 5))

    def logits() -> torch.Tensor:
        return model.logits(model.hidden(tokens, rows, chosen), chosen).float()

    plain = logits()
    if not model.pack_weights():
        pytest.skip("this build of torch has no oneDNN")
    assert model.pack_weights() == sum(weight.nbytes for name, weight in model.named_parameters()
                                       if weight.dim() == 2 and "embed" not in name)  # fmt: skip
    near = 1e-5 if dtype == torch.float32 else 0.2
    packed = logits()
    assert (packed - plain).abs().max() < near
    model.unpack_weights()
    unpacked = logits()
    assert (unpacked - plain).abs().max() < near
    model.pack_weights()
    assert torch.equal(logits(), packed)
    model.model.layers[0].mlp.up_proj.weight.mul_(2)
    model.model.layers[1].self_attn.q_proj.weight = torch.nn.Parameter(
        2 * model.model.layers[1].self_attn.q_proj.weight, requires_grad=False
    )
    changed = logits()
    assert (changed - plain).abs().max() > 0.1
    other = CausalLM(model.shape, dtype=dtype)
    other.load_state_dict(model.state_dict())
    other.requires_grad_(False)
    wanted = other.logits(other.hidden(tokens, rows, chosen), chosen).float()
    assert (changed - wanted).abs().max() < near
