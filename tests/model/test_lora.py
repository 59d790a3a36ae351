"""Adapters against peft, against dense weights in float64, and several in one batch against each alone."""

import pytest
import torch
from transformers_twins import T0, assert_gradients, fill, twins, with_peft

from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.lora import AdapterRows, LoraBank, LoraSettings, adapted_linears

ALL = ("attention", "mlp", "unembedding")


def drawn(**changes) -> CausalLM:
    return CausalLM(DecoderShape(**(vars(T0) | changes))).draw(0, std=0.2)


def tokens_of(lengths, seed=1) -> torch.Tensor:
    return torch.randint(0, 261, (sum(lengths),), generator=torch.Generator().manual_seed(seed))


def loss_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return -logits.log_softmax(-1)[torch.arange(len(tokens)), tokens].mean()


def test_new_adapter_changes_nothing_and_goes_by_its_seed():
    model = drawn()
    bank = LoraBank(model)
    a = bank.create("a", LoraSettings(rank=4, seed=1, targets=ALL))
    b = bank.create("b", LoraSettings(rank=4, seed=1, targets=ALL))
    c = bank.create("c", LoraSettings(rank=4, seed=2, targets=ALL))
    tokens, rows = tokens_of([7]), PackedRows.of([7])
    chosen = bank.rows(["a"], [7])
    plain = model.logits(model.hidden(tokens, rows))
    assert torch.equal(model.logits(model.hidden(tokens, rows, chosen), chosen), plain)
    for key, first in a.lora_A.items():
        assert torch.equal(first, b.lora_A[key]) and not torch.equal(first, c.lora_A[key])
        assert 0 < first.abs().max() <= first.shape[-1] ** -0.5
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert len(list(a.parameters())) == 16  # seven kinds of layers and the unembedding


@pytest.mark.parametrize("rslora", [False, True])
def test_logits_and_gradients_are_of_dense_weights_in_float64(rslora):
    model = drawn(tied=True)
    bank = LoraBank(model)
    adapter = bank.create("a", LoraSettings(rank=4, alpha=6, targets=ALL, rslora=rslora))
    fill(adapter)
    tokens, rows, chosen = tokens_of([7, 5]), PackedRows.of([7, 5]), bank.rows(["a", "a"], [7, 5])
    logits = model.logits(model.hidden(tokens, rows, chosen), chosen)
    loss_of(logits, tokens).backward()

    scale = 6 / 2 if rslora else 6 / 4
    pairs, dense = {}, {name: value.double() for name, value in model.state_dict().items()}
    dense["lm_head.weight"] = dense["model.embed_tokens.weight"]
    for part, a, b in adapter.tensors():
        a, b = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()
        pairs[part.site.name] = (a, b)
        dense[f"{part.site.name}.weight"] = dense[f"{part.site.name}.weight"] + scale * b @ a
    exact = torch.cat([slow_logits(dense, row) for row in tokens.split([7, 5])])
    assert (logits - exact).abs().max() < 1e-5
    loss_of(exact, tokens).backward()
    for key, stack in adapter.stacks.items():
        for index, part in enumerate(stack):
            a, b = pairs[part.site.name]
            assert (adapter.lora_A[key].grad[index] - a.grad).abs().max() < 1e-5
            assert (adapter.lora_B[key].grad[index] - b.grad).abs().max() < 1e-5
            assert min(a.grad.abs().max(), b.grad.abs().max()) > 1e-5


def slow_logits(weights: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
    """The formulas of a llama of T0's shape, one by one."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return weights[name] * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def turn(x: torch.Tensor) -> torch.Tensor:
        speeds = 10000.0 ** -(torch.arange(0, 8, 2).double() / 8)
        angles = torch.arange(len(row)).double()[:, None, None] * speeds
        first, second = x.chunk(2, -1)
        return torch.cat(
            [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1
        )

    x = weights["model.embed_tokens.weight"][row]
    for i in range(2):
        layer = f"model.layers.{i}."
        h = norm(x, layer + "input_layernorm.weight")
        q, k, v = ((h @ weights[f"{layer}self_attn.{p}_proj.weight"].T).view(len(row), -1, 8) for p in "qkv")
        q, k = turn(q), turn(k)
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) / 8**0.5
        scores = scores.masked_fill(torch.ones(len(row), len(row)).triu(1).bool(), -torch.inf)
        out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(2, 1)).flatten(1)
        x = x + out @ weights[layer + "self_attn.o_proj.weight"].T
        h = norm(x, layer + "post_attention_layernorm.weight")
        gate, up = (h @ weights[f"{layer}mlp.{p}_proj.weight"].T for p in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ weights[layer + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ weights["lm_head.weight"].T


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", ["llama", "llama, biases, llama3 positions", "mistral, window", "qwen2", "qwen3"])
def test_logits_and_gradients_are_pefts(name, rslora):
    theirs, model = twins(name)
    bank = LoraBank(model)
    adapter = bank.create("a", LoraSettings(rank=4, alpha=6, rslora=rslora))
    fill(adapter)
    twin = with_peft(theirs, adapter)
    lengths = [9, 4]
    tokens = tokens_of(lengths)
    logits = model.logits(model.hidden(tokens, PackedRows.of(lengths), bank.rows(["a", "a"], lengths)))
    wanted = torch.cat([twin(row[None]).logits[0] for row in tokens.split(lengths)])
    assert (logits - wanted).abs().max() < 1e-5
    loss_of(logits, tokens).backward()
    loss_of(wanted, tokens).backward()
    gradients = {name: parameter.grad for name, parameter in adapter.named_parameters()}
    assert_gradients(adapter, gradients, twin)


def test_several_adapters_in_one_batch_equal_each_alone():
    model = drawn()
    bank = LoraBank(model)
    for seed, (name, rank, targets) in enumerate([("a", 4, ALL), ("b", 3, ("mlp",))]):
        fill(bank.create(name, LoraSettings(rank=rank, seed=seed, targets=targets)), seed)
    names, lengths = [None, "a", "a", "b", None, "a", "b", "b"], [3, 17, 1, 9, 2, 5, 4, 17]
    tokens = tokens_of(lengths)
    chosen = bank.rows(names, lengths)
    states = model.hidden(tokens, PackedRows.of(lengths), chosen)
    last = torch.tensor(lengths).cumsum(0) - 1  # logits of each row's last token only
    together = model.logits(states[last], chosen.with_lengths([1] * 8))
    loss_of(together, tokens[last]).backward()
    grown = {name: [p.grad.clone() for p in bank[name].parameters()] for name in "ab"}
    alone = []
    for name in "ab":
        bank[name].zero_grad()
    for name, row in zip(names, tokens.split(lengths), strict=True):
        one = bank.rows([name], [len(row)])
        states = model.hidden(row, PackedRows.of([len(row)]), one)
        alone.append(model.logits(states[-1:], one.with_lengths([1])))
        if name:
            (loss_of(alone[-1], row[-1:]) / 8).backward()
    assert (together - torch.cat(alone)).abs().max() < 1e-5
    for name in "ab":
        for found, parameter in zip(grown[name], bank[name].parameters(), strict=True):
            assert (found - parameter.grad).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_ready_for_sampling_give_the_same_and_follow_changes(dtype):
    """Joined factors, over packed weights, of adapters of all layers, of some, and of a rank too high to join."""
    model = CausalLM(T0, dtype=dtype).draw(0, std=0.2)
    bank = LoraBank(model)
    chosen = {"a": (4, ALL), "b": (3, ("mlp",)), "c": (70, ("attention",)), "d": (2, ("unembedding",))}
    lengths, names = [5, 6, 4, 3, 7], ["a", "b", None, "c", "d"]
    for seed, (name, (rank, targets)) in enumerate(chosen.items()):
        fill(bank.create(name, LoraSettings(rank=rank, alpha=3, targets=targets)), seed)
    tokens, rows = tokens_of(lengths), PackedRows.of(lengths)

    def logits(adapters) -> torch.Tensor:
        which = AdapterRows(tuple(adapters), tuple(lengths))
        return model.logits(model.hidden(tokens, rows, which), which)

    own = [None if name is None else bank[name] for name in names]
    shared = [None if each is None else each.sharing() for each in own]
    plain = logits(own).detach()
    assert model.pack_weights()
    most = 1e-5 if dtype == torch.float32 else 0.02 * plain.abs().max()
    with torch.inference_mode():
        assert (logits(shared) - plain).abs().max() < most
        assert shared[0].ready_factors() is shared[0].ready_factors(), "nothing is made anew in each call"
    with torch.no_grad():
        for each in own[:2]:
            for b in each.lora_B.values():
                b.mul_(-2)  # in place, so that the shared ones change too
        changed = logits(own)
        assert (changed - plain).abs().max() > 0.5
        assert (logits(shared) - changed).abs().max() < most
    assert own[0].ready_factors() is None and shared[0].ready_factors() is None, "with gradients none are kept"
    going_on = shared[0].sharing(trained=True)
    with torch.no_grad():  # a restored adapter rounds as the one that was saved
        assert going_on.ready_factors() is None and all(each.requires_grad for each in going_on.parameters())


def test_weights_that_are_trained_too_get_the_same_gradients():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 5, generator=generator, requires_grad=True)
    weight = torch.randn(3, 5, generator=generator, requires_grad=True)
    model = drawn()
    bank = LoraBank(model)
    adapter = bank.create("a", LoraSettings(rank=2))
    segments = bank.rows([None, "a", None], [2, 3, 1]).segments()
    a, b = (torch.randn(*size, generator=generator, requires_grad=True) for size in ((2, 5), (3, 2)))
    object.__setattr__(segments.runs[0], "factors", {"x": (a, b, 0.5)})
    found = adapted_linears(inputs, [("x", weight, None)], segments)[0]
    frozen = adapted_linears(inputs, [("x", weight.detach(), None)], segments)[0]
    assert (found - frozen).abs().max() < 1e-6
    given = torch.randn(6, 3, generator=generator)
    first = torch.autograd.grad((found * given).sum(), (inputs, a, b, weight))
    second = torch.autograd.grad((frozen * given).sum(), (inputs, a, b))
    for mine, right in zip(second, first, strict=False):
        assert (mine - right).abs().max() < 1e-5
    assert adapter.parts()


def test_bank_knows_its_adapters():
    bank = LoraBank(drawn())
    bank.create("a", LoraSettings(rank=2))
    with pytest.raises(ValueError, match="already"):
        bank.create("a", LoraSettings(rank=2))
    with pytest.raises(KeyError, match="no adapter 'b'; there are: a"):
        bank.rows(["b"], [3])
    with pytest.raises(ValueError, match="another size"):
        bank.add("c", LoraBank(drawn(width=16)).create("c", LoraSettings(rank=2)))
    with pytest.raises(ValueError, match="rank is 0"):
        LoraSettings(rank=0)
    with pytest.raises(ValueError, match="allowed: attention, mlp, unembedding"):
        LoraSettings(targets=("heads",))
    kept = bank["a"].snapshot()
    with torch.no_grad():
        for parameter in bank["a"].parameters():
            parameter.add_(1)
    assert all(not torch.equal(p, q) for p, q in zip(kept.parameters(), bank["a"].parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    bank.remove("a")
    assert bank.names() == [] and "a" not in bank
