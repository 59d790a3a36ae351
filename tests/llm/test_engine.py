"""The engine: gradients and steps against plain torch, versions, states, and calls that fail without a trace."""

import math

import pytest
import torch
from transformers_twins import assert_gradients, fill, twins, with_peft

from llm.adam import AdamSettings
from llm.base_model import BaseModel
from llm.engine import Engine, EngineLimits
from llm.engine_error import EngineError, NonFiniteError, PassFailedError, UnknownAdapterError
from llm.hub_model import HubCausalLM
from llm.loss_pass import LossRequest, LossRow
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.lora import LoraSettings

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=64)
ALL = ("attention", "mlp", "unembedding")
STEP = AdamSettings(learning_rate=1e-2)


def engine(dtype=torch.float32, **limits) -> Engine:
    model = CausalLM(T0, dtype=dtype).draw(0, std=0.2)
    base = BaseModel(model, None, "", T0.context, (257,), None, "t0", "t0", {})
    return Engine(base, EngineLimits(**limits))


def row(length: int, seed: int = 0, weight: float | None = 1.0, **inputs: torch.Tensor) -> LossRow:
    tokens = torch.randint(0, 261, (length + 1,), generator=torch.Generator().manual_seed(seed))
    given = {"weights": torch.full((length,), weight)} if weight is not None else {}
    return LossRow(tokens[:-1], tokens[1:], given | inputs)


def policy_row(length: int, seed: int = 0) -> LossRow:
    draw = torch.Generator().manual_seed(seed + 100)
    advantages = torch.randn(length, generator=draw)
    advantages[: length // 2] = 0
    old = -torch.rand(length, generator=draw) - 4
    old[: length // 2] = 0
    return row(length, seed, None, logprobs=old, advantages=advantages)


def logprobs(made: Engine, name: str | None) -> torch.Tensor:
    return made.forward(name, [row(9, 77)]).logprobs[0]


def weights(made: Engine, name: str) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in made.bank[name].parameters()]


def largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


def trained(made: Engine, name: str, steps: int = 3, **changes) -> None:
    made.create(name, LoraSettings(**({"rank": 4, "targets": ALL} | changes)))
    for number in range(steps):
        made.forward_backward(name, [row(9, number), row(5, number + 10)])
        made.optimizer_step(name, STEP)


def plain_loss(made: Engine, name: str, rows: list[LossRow]) -> torch.Tensor:
    """Row after row with whole logits, for autograd to follow."""
    total = torch.zeros(())
    for each in rows:
        adapters = made.bank.rows([name], [len(each.tokens)])
        hidden = made.base.model.hidden(each.tokens, PackedRows.of([len(each.tokens)]), adapters)
        found = made.base.model.logits(hidden, adapters).log_softmax(1)
        chosen = found[torch.arange(len(each.tokens)), each.targets]
        total = total - (chosen * each.inputs["weights"]).sum()
    return total


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_steps_are_those_of_torchs_adamw_over_whole_logits(clip):
    made, plain = engine(pass_tokens=12), engine()
    for each in (made, plain):
        each.create("a", LoraSettings(rank=4, targets=ALL, seed=3))
    parameters = list(plain.bank["a"].parameters())
    adam = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.1)
    settings = AdamSettings(1e-2, weight_decay=0.1, grad_clip_norm=clip)
    for number in range(4):
        rows = [row(9, number), row(3, number + 10, 0.5), row(7, number + 20, -0.25)]
        result = made.forward_backward("a", rows)
        wanted = plain_loss(plain, "a", rows)
        adam.zero_grad()
        wanted.backward()
        assert result.loss == pytest.approx(wanted.item(), rel=1e-5) and result.trained_tokens == 19
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip or math.inf).item()
        step = made.optimizer_step("a", settings)
        adam.step()
        assert step.gradient_norm == pytest.approx(norm, rel=1e-4) and step.step == number + 1 and not step.skipped
        assert largest_difference(weights(made, "a"), parameters) < 2e-5
    assert all(b.norm() > 0 for b in made.bank["a"].lora_B.values())
    assert {each.dtype for each in weights(made, "a")} == {torch.float32}


@pytest.mark.parametrize("pass_tokens", [1000, 1])
@pytest.mark.parametrize("name", ["llama, tied", "mistral, window", "qwen2", "qwen3"])
def test_losses_and_gradients_are_pefts(name, pass_tokens):
    theirs, ours = twins(name)
    base = BaseModel(ours, None, "", 128, (257,), None, "twin", "twin", {})
    made = Engine(base, EngineLimits(pass_tokens=pass_tokens))
    made.create("a", LoraSettings(rank=4, alpha=6))
    adapter = made.bank["a"]
    fill(adapter)
    twin = with_peft(theirs, adapter)
    rows = [row(9, 1), row(30, 2), row(4, 3)]
    loss = torch.zeros(())
    for each in rows:
        found = twin(each.tokens[None]).logits[0].log_softmax(1)
        loss = loss - found[torch.arange(len(each.tokens)), each.targets].sum() / 43
    loss.backward()
    result = made.forward_backward("a", rows)
    assert result.loss / 43 == pytest.approx(loss.item(), abs=1e-5) and result.trained_tokens == 43
    names = [name for name, _ in adapter.named_parameters()]
    mean = [gradient / 43 for gradient in made._trained["a"].gradients]
    assert_gradients(adapter, dict(zip(names, mean, strict=True)), twin)


def test_gradients_of_transformers_own_model_are_those_of_ours():
    """Its layers leave an adapter's gradients to autograd, ours add them up themselves."""
    theirs, ours = twins("llama, tied")
    found = []
    for model in (HubCausalLM(theirs), ours):
        made = Engine(BaseModel(model, None, "", 128, (257,), None, "twin", "twin", {}))
        for name in ("a", "b"):
            made.create(name, LoraSettings(rank=4, targets=("attention", "mlp")))
            fill(made.bank[name])
        rows = {"a": [row(9, 1), row(30, 2)], "b": [row(4, 3)]}
        made.run([LossRequest(name, own, backward=True) for name, own in rows.items()])
        found.append([gradient for name in ("a", "b") for gradient in made._trained[name].gradients])
    assert largest_difference(*found) < 2e-3 and max(each.abs().max() for each in found[0]) > 10


def test_packing_and_several_calls_change_neither_loss_nor_gradient():
    """B1: what a token weighs doesn't go by the batch that it came in."""
    rows = [row(1, 1), row(9, 2), row(30, 3), row(4, 4)]
    found = []
    for pass_tokens, calls in ((1000, [rows]), (1, [rows]), (1000, [[each] for each in rows]), (13, [rows[::-1]])):
        made = engine(pass_tokens=pass_tokens)
        made.create("a", LoraSettings(rank=4, targets=ALL))
        loss = math.fsum(made.forward_backward("a", each).loss for each in calls)
        gradients = [each / 44 for each in made._trained["a"].gradients]
        made.optimizer_step("a", AdamSettings(1e-2, eps=1.0))  # an even step, not the gradient's sign
        found.append((loss, gradients, weights(made, "a")))
    for loss, gradients, after in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert largest_difference(gradients, found[0][1]) < 1e-6
        assert largest_difference(after, found[0][2]) < 1e-6


def test_rows_of_a_call_never_see_each_other():
    """B2."""
    made = engine()
    trained(made, "a")
    first, second, other = row(6, 1), row(9, 2), row(6, 3)
    alone = made.forward("a", [second]).logprobs[0]
    together = made.forward("a", [first, second]).logprobs[1]
    changed = made.forward("a", [other, second]).logprobs[1]
    assert (together - alone).abs().max() < 1e-5
    assert torch.equal(together, changed)


def test_several_adapters_in_one_pass_equal_each_alone():
    made, alone = engine(), engine()
    for each in (made, alone):
        trained(each, "a", seed=1)
        trained(each, "b", seed=2, rank=8)
        trained(each, "c", seed=3, targets=("attention",))
    requests = [
        LossRequest("a", [row(9, 1), row(3, 2)], backward=True),
        LossRequest("b", [policy_row(8, 3)], "ppo", {"clip_high_threshold": 1.5}, backward=True),
        LossRequest(None, [row(5, 4)]),
        LossRequest("c", [row(7, 5)]),
        LossRequest("a", [policy_row(6, 6)], "dro", backward=True),
    ]
    results = made.run(requests)
    for request, result in zip(requests, results, strict=True):
        (single,) = alone.run([request])
        assert result.loss == single.loss
        assert all(map(torch.equal, result.logprobs, single.logprobs))
    for name in ("a", "b"):
        first, second = made._trained[name].gradients, alone._trained[name].gradients
        assert all(map(torch.equal, first, second)) and max(each.abs().max() for each in first) > 0.1
    assert made._trained["c"].gradients is None


@pytest.mark.parametrize("threads", [1, 2])
def test_who_shares_a_pass_gets_the_bits_that_it_gets_alone(threads):
    """A product of few rows rounds otherwise than one of many: so it must be made of each request's rows apart."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = engine(pass_tokens=60)
        made.sampler  # noqa: B018 - it packs the weights, by which few rows are multiplied another way
        lengths = {"a": [1], "b": [20, 20, 20, 20], "c": [20], "d": [7, 20, 1], "e": [63]}
        for seed, name in enumerate(lengths):
            trained(made, name, seed=seed, rank=seed + 1, targets=ALL[: 1 + seed % 3])
        requests = []
        for name, own in lengths.items():
            rows = [row(length, 9 * number + length) for number, length in enumerate(own)]
            requests += [LossRequest(name, rows, backward=backward) for backward in (True, False)]
        wide = [(each, each.inputs["weights"][:, None] * torch.tensor([1.0, 0.0, 0.3])) for each in requests[2].rows]
        wide_rows = [LossRow(each.tokens, each.targets[:, None].expand(-1, 3), {"weights": weights})
                     for each, weights in wide]  # fmt: skip
        wide_rows[1].inputs["weights"][:9] = 0  # an effect on the loss have some alone
        requests[2] = LossRequest("b", wide_rows, backward=True)
        alone = {}
        for number, request in enumerate(requests):
            (result,) = made.run([request])
            alone[number] = result, made._trained[request.adapter].gradients
            made.drop_gradients(request.adapter)
        for order in (range(10), (7, 2, 9, 0, 5, 4, 1, 8, 3, 6)):
            results = made.run([requests[number] for number in order])
            for number, result in zip(order, results, strict=True):
                single, gradients = alone[number]
                assert result.loss == single.loss and all(map(torch.equal, result.logprobs, single.logprobs))
                if gradients is not None:
                    name = requests[number].adapter
                    assert max(each.abs().max() for each in gradients) > 0.1
                    assert all(map(torch.equal, made._trained[name].gradients, gradients)), (name, order)
                    made.drop_gradients(name)
    finally:
        torch.set_num_threads(before)


def test_a_pass_that_breaks_fails_only_the_request_that_breaks_it(monkeypatch):
    made = engine()
    for name in ("a", "b", "c"):
        trained(made, name)
    fine = made.forward_backward("a", [row(6, 1)])
    wanted = made._trained["a"].gradients
    made.drop_gradients("a")
    whole = made.base.model.hidden

    def hidden(tokens, *others):
        if 77 in tokens:
            raise RuntimeError("not enough memory")
        return whole(tokens, *others)

    monkeypatch.setattr(made.base.model, "hidden", hidden)
    bad = LossRow(torch.tensor([77]), torch.tensor([1]), {"weights": torch.ones(1)})
    first, second, third = made.run([LossRequest("a", [row(6, 1)], backward=True),
                                     LossRequest("b", [bad], backward=True),
                                     LossRequest("c", [row(5, 2)], backward=True)])  # fmt: skip
    assert isinstance(second, PassFailedError) and "not enough memory" in str(second)
    assert made._trained["b"].gradients is None and made._trained["c"].gradients is not None
    assert first.loss == fine.loss and all(map(torch.equal, made._trained["a"].gradients, wanted))
    assert math.isfinite(third.loss)


def test_weights_that_are_not_finite_fail_their_own_request_and_leave_its_gradients():
    made = engine()
    for name in ("a", "b"):
        trained(made, name)
    made.forward_backward("b", [row(4, 4)])
    before = [each.clone() for each in made._trained["b"].gradients]
    (alone,) = made.run([LossRequest("a", [row(6, 1)], backward=True)])
    wanted = made._trained["a"].gradients
    made.drop_gradients("a")
    with torch.no_grad():
        next(iter(made.bank["b"].parameters()))[0, 0, 0] = float("nan")
    first, second = made.run(
        [LossRequest("a", [row(6, 1)], backward=True), LossRequest("b", [row(6, 2)], backward=True)]
    )
    assert isinstance(second, NonFiniteError) and "adapter 'b'" in str(second)
    assert first.loss == alone.loss and all(map(torch.equal, made._trained["a"].gradients, wanted))
    assert all(map(torch.equal, made._trained["b"].gradients, before))


def test_losses_of_policies_have_the_gradient_of_the_formula():
    made = engine()
    trained(made, "a")
    for loss in ("importance_sampling", "ppo", "cispo", "dro"):
        each = policy_row(12, 5)
        made.drop_gradients("a")
        result = made.forward_backward("a", [each], loss)
        adapters = made.bank.rows(["a"], [12])
        hidden = made.base.model.hidden(each.tokens, PackedRows.of([12]), adapters)
        found = made.base.model.logits(hidden, adapters).log_softmax(1)[torch.arange(12), each.targets]
        old, adv = each.inputs["logprobs"], each.inputs["advantages"]
        ratio = (found - old).exp()
        wanted = {
            "importance_sampling": -(ratio * adv),
            "ppo": -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv),
            "cispo": -(ratio.clamp(0.0, 4.0).detach() * found * adv),
            "dro": -(found * adv - 0.025 * (found - old) ** 2),
        }[loss].sum()
        gradients = torch.autograd.grad(wanted, list(made.bank["a"].parameters()))
        assert result.loss == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
        assert largest_difference(made._trained["a"].gradients, gradients) < 1e-4
        assert (result.logprobs[0] - found).abs().max() < 1e-5
        assert result.trained_tokens == (12 if loss == "dro" else 6)


def test_a_loss_of_ones_own_by_weights_and_targets_by_the_dozen():
    """forward_backward_custom: weights = -dL/dlogp give the gradient of L. And targets (T, K) beside (T,)."""
    made = engine()
    trained(made, "a")
    each = row(8, 1, 0.0)
    result = made.forward("a", [each])
    assert result.loss == 0 and result.trained_tokens == 0
    logp = result.logprobs[0].requires_grad_()
    (pulled,) = torch.autograd.grad((logp**2).sum(), logp)
    made.forward_backward("a", [LossRow(each.tokens, each.targets, {"weights": -pulled})])
    first = made._trained["a"].gradients
    made.drop_gradients("a")
    pair = torch.stack([each.targets, each.targets.flip(0)], 1)
    weights_of_pair = torch.stack([-pulled, torch.zeros(8)], 1)
    wide = LossRow(each.tokens, pair, {"weights": weights_of_pair})
    result = made.forward_backward("a", [wide, row(3, 9, 0.0)])
    assert result.logprobs[0].shape == (8, 2) and result.logprobs[1].shape == (3,)
    assert torch.allclose(result.logprobs[0][:, 0], logp, atol=1e-5)
    assert largest_difference(first, made._trained["a"].gradients) < 1e-4


def test_logprobs_without_effect_may_be_left_out():
    made = engine()
    trained(made, "a")
    each = row(8, 1, None, weights=torch.tensor([0.0] * 5 + [1.0] * 3))
    whole = made.forward_backward("a", [each])
    gradients = made._trained["a"].gradients
    made.drop_gradients("a")
    (part,) = made.run([LossRequest("a", [each], backward=True, all_logprobs=False)])
    assert part.loss == whole.loss and torch.equal(part.logprobs[0][5:], whole.logprobs[0][5:])
    assert torch.equal(part.logprobs[0][:5], torch.zeros(5)) and (whole.logprobs[0] < 0).all()
    assert largest_difference(gradients, made._trained["a"].gradients) == 0
    (forward,) = made.run([LossRequest("a", [each], all_logprobs=False)])
    assert forward.loss == pytest.approx(whole.loss) and torch.equal(forward.logprobs[0][:5], torch.zeros(5))


def test_loading_with_and_without_the_optimizer():
    """B4."""
    made = engine()
    trained(made, "a")
    whole, weights_only = made.state("a"), made.state("a", optimizer=False)
    before = weights(made, "a")
    made.create_from("with", whole, optimizer=True)
    made.create_from("without", whole, optimizer=False)
    made.create_from("back", whole, optimizer=True)
    trained(made, "c", seed=9)
    made.put_back("c", whole, optimizer=True)
    for name in ("a", "with", "without", "c"):
        made.forward_backward(name, [row(9, 50)])
        made.optimizer_step(name, STEP)
    uninterrupted = logprobs(made, "a")
    assert torch.equal(logprobs(made, "with"), uninterrupted) and torch.equal(logprobs(made, "c"), uninterrupted)
    assert (logprobs(made, "without") - uninterrupted).abs().max() > 1e-4
    assert (made.info("with").step, made.info("without").step, made.info("c").step) == (4, 1, 4)
    assert largest_difference(weights(made, "back"), before) == 0  # a state isn't moved by who goes on from it
    with pytest.raises(EngineError, match="saved without the optimizer: it can be loaded as weights only"):
        made.create_from("d", weights_only, optimizer=True)
    trained(made, "small", rank=2)
    with pytest.raises(EngineError, match="other layers, ranks or scales than adapter 'small'"):
        made.put_back("small", whole, optimizer=False)


def test_versions_stay_what_they_are():
    """E5: who samples from a version has its weights, whatever the adapter does meanwhile."""
    made = engine()
    trained(made, "a")
    old = logprobs(made, "a")
    version = made.hold_version("a")
    assert made.hold_version("a") == version and made.versions() == [version]
    shared = [a.data_ptr() == b.data_ptr()
              for a, b in zip(made.bank["a"].parameters(), made.bank[version].parameters(), strict=True)]  # fmt: skip
    assert all(shared)  # no copy
    made.forward_backward("a", [row(9, 50)])
    assert made.hold_version("a") == version  # gradients are no weights
    made.optimizer_step("a", AdamSettings(learning_rate=0.1))
    newer = made.hold_version("a")
    assert newer != version and torch.equal(logprobs(made, version), old)
    assert (logprobs(made, "a") - old).abs().max() > 1e-3
    assert torch.equal(logprobs(made, newer), logprobs(made, "a"))
    made.delete("a")
    assert torch.equal(logprobs(made, version), old)
    for _ in range(3):
        made.release_version(version)
    assert made.versions() == [newer] and version not in made.bank
    with pytest.raises(UnknownAdapterError, match=f"there is no version '{version}'"):
        made.release_version(version)
    with pytest.raises(UnknownAdapterError, match=f"there is no adapter '{newer}'"):
        made.forward_backward(newer, [row(3)])  # a version is never trained


def held_bytes(made: Engine) -> int:
    """Memory of all adapters and versions: what they share counts once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
                for name in made.bank.names() for each in made.bank[name].parameters()}  # fmt: skip
    return sum(storages.values())


def test_versions_take_memory_for_each_step_and_none_for_each_version():
    made = engine()
    trained(made, "a", steps=1)
    one = held_bytes(made)
    assert one >= 4 * made.info("a").parameters
    for step in range(1, 4):
        held = [made.hold_version("a") for _ in range(10)]
        made.create_from(f"copy {step}", made.state("a"), optimizer=True)
        assert len(set(held)) == 1 and held_bytes(made) == step * one
        made.forward_backward("a", [row(9, step)])
        made.optimizer_step("a", STEP)
        assert held_bytes(made) == (step + 1) * one
    for name in ("a", "copy 1", "copy 2", "copy 3"):
        made.delete(name)
    for version in made.versions() * 10:
        made.release_version(version)
    assert held_bytes(made) == 0


def test_beginnings_of_prompts_keep_no_weights_that_nobody_can_ask_for():
    made = engine()
    made.create("a", LoraSettings(4))
    settings = SamplingSettings(temperature=0, max_tokens=2, end_ids=())
    for step in range(4):
        version = made.hold_version("a")
        made.sample([SampleRequest(list(range(40)), settings, adapter=version)])
        again = made.sampler.submit(SampleRequest(list(range(40)), settings, adapter=version))
        while made.sampler.step():
            pass
        assert again.cached_tokens == 39  # of weights that are there, beginnings are kept
        made.release_version(version)
        made.forward_backward("a", [row(9, step)])
        made.optimizer_step("a", STEP)
    assert len(made.sampler._prefixes) == 1


def sampled(made: Engine, name: str | None, seed: int = 0):
    prompt = list(range(40, 60))
    settings = SamplingSettings(temperature=1.0, seed=seed, max_tokens=12, end_ids=())
    ((sample,),) = made.sample([SampleRequest(prompt, settings, adapter=name)])
    ids = torch.tensor([*prompt, *sample.tokens])
    result = made.forward(name, [LossRow(ids[:-1], ids[1:], {"weights": torch.zeros(len(ids) - 1)})])
    return sample, result.logprobs[0][len(prompt) - 1 :]


def test_samples_are_of_the_weights_as_they_are_and_have_the_trainers_logprobs():
    """E5 and E1: after each step a sample has the new weights; a version goes on as it was; ratios begin at 1."""
    made = engine()
    trained(made, "a", steps=1)
    version = made.hold_version("a")
    first = {}
    for step in range(3):
        for name in ("a", version, None):
            sample, again = sampled(made, name)
            assert (torch.tensor(sample.logprobs) - again).abs().max() < 1e-4
            assert len(sample.tokens) == 12
            first.setdefault(name, (sample.tokens, sample.logprobs))
            same = first[name][0] == sample.tokens and first[name][1] == pytest.approx(sample.logprobs, abs=1e-5)
            assert same == (name != "a" or step == 0)
        made.forward_backward("a", [row(9, step)])
        made.optimizer_step("a", AdamSettings(learning_rate=0.1))
    sample, again = sampled(made, "a")
    tokens = torch.tensor([*range(40, 60), *sample.tokens])
    advantages = torch.zeros(31)
    advantages[19:] = 1.0
    old = torch.zeros(31)
    old[19:] = torch.tensor(sample.logprobs)
    on_policy = LossRow(tokens[:-1], tokens[1:], {"logprobs": old, "advantages": advantages})
    assert made.forward_backward("a", [on_policy], "importance_sampling").loss == pytest.approx(-12, abs=1e-3)


def test_a_sample_under_way_keeps_its_weights_while_the_adapter_is_trained():
    made, undisturbed = engine(), engine()
    handles = []
    for each in (made, undisturbed):
        trained(each, "a")
        settings = SamplingSettings(temperature=1.0, seed=3, max_tokens=10, end_ids=())
        handles.append(each.sampler.submit(SampleRequest(list(range(9)), settings, adapter="a")))
        for _ in range(4):
            each.sampler.step()
    made.forward_backward("a", [row(9, 50)])
    made.optimizer_step("a", AdamSettings(learning_rate=0.1))
    for each in (made, undisturbed):
        while each.sampler.step():
            pass
    (with_training,), (without,) = (handle.result() for handle in handles)
    assert with_training.tokens == without.tokens
    assert with_training.logprobs == pytest.approx(without.logprobs, abs=1e-6)


def test_the_same_calls_give_the_same_bits_and_the_same_version():
    first, second = engine(), engine()
    for made in (first, second):
        trained(made, "a")
    assert largest_difference(weights(first, "a"), weights(second, "a")) == 0
    assert first.hold_version("a") == second.hold_version("a")
    assert torch.equal(logprobs(first, "a"), logprobs(second, "a"))


def test_numbers_that_are_not_finite_end_the_call_and_change_nothing():
    """B6, second half."""
    made = engine()
    trained(made, "a")
    made.forward_backward("a", [row(4, 1)])
    before, gradients = weights(made, "a"), [each.clone() for each in made._trained["a"].gradients]
    weight = made.base.model.model.layers[1].mlp.up_proj.weight
    sound = weight.detach().clone()
    weight[3, 4] = torch.inf
    said = r"forward_backward of adapter 'a', step 4: the log-probability of row 0, token 0 is nan; the adapter and its"
    with pytest.raises(NonFiniteError, match=said):
        made.forward_backward("a", [row(4, 1)])
    with pytest.raises(NonFiniteError, match="forward of the base model: the log-probability of row 0"):
        made.forward(None, [row(4, 1)])
    weight.copy_(sound)
    far = row(4, 1, None, logprobs=torch.full((4,), -1e4), advantages=torch.ones(4))
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        made.forward_backward("a", [far], "importance_sampling")
    results = made.run([LossRequest("a", [far], "importance_sampling", backward=True), LossRequest(None, [row(3)])])
    assert isinstance(results[0], NonFiniteError) and results[1].loss > 0
    with pytest.raises(
        NonFiniteError, match=r"optimizer step 4 of adapter 'a': lora_A\.\S+ would not be finite at lea"
    ):
        made.optimizer_step("a", AdamSettings(learning_rate=1e39))
    assert largest_difference(made._trained["a"].gradients, gradients) == 0
    assert largest_difference(weights(made, "a"), before) == 0 and made.info("a").step == 3
    assert made.optimizer_step("a", STEP).step == 4


def test_a_step_without_gradient_changes_nothing_and_says_so():
    made = engine()
    trained(made, "a")
    before = weights(made, "a")
    result = made.optimizer_step("a", STEP)
    assert (result.step, result.skipped) == (3, True) and largest_difference(weights(made, "a"), before) == 0
    made.forward_backward("a", [row(4, 1, 0.0)])  # a gradient of zeros is one: Adam's momentum goes on
    assert not made.optimizer_step("a", STEP).skipped
    assert all(each.isfinite().all() for each in weights(made, "a"))


def test_adapters_and_moments_are_float32_over_a_base_in_bfloat16():
    """B6, first half: steps far below what bfloat16 resolves add up."""
    changes = []
    for dtype in (torch.float32, torch.bfloat16):
        made = engine(dtype)
        made.create("a", LoraSettings(rank=4))
        before = weights(made, "a")
        for number in range(10):
            made.forward_backward("a", [row(9, number)])
            made.optimizer_step("a", AdamSettings(learning_rate=1e-5))
        entry = made._trained["a"]
        assert {each.dtype for both in entry.moments for each in both} == {torch.float32}
        changes.append(sum((a - b).abs().sum() for a, b in zip(weights(made, "a"), before, strict=True)).item())
    assert changes[1] == pytest.approx(changes[0], rel=0.1)


WRONG = {
    "there are no rows": lambda: [],
    r"row 1: its tokens have the shape \(0,\); a row has 1 or more": lambda: [
        row(3),
        LossRow(*[torch.zeros(0).long()] * 2),
    ],
    "row 0 has 65 tokens; the model's context is 64": lambda: [row(65)],
    "row 0 has the token 261; ids go from 0 to 260": lambda: [LossRow(torch.tensor([261]), torch.tensor([0]))],
    "row 0 has the target -1; ids go from 0 to 260": lambda: [LossRow(torch.tensor([0]), torch.tensor([-1]))],
    r"row 0: its targets have the shape \(2,\); allowed are \(1,\) and \(1, K\)": lambda: [
        LossRow(torch.tensor([0]), torch.tensor([1, 2]))
    ],
    "row 0: its tokens are torch.float32; they must be int64": lambda: [LossRow(torch.zeros(2), torch.zeros(2).long())],
    "row 0 has no weights, which the loss cross_entropy needs": lambda: [row(3, 0, None)],
    r"row 0: weights has the shape \(2,\), its targets \(3,\)": lambda: [row(3, 0, None, weights=torch.ones(2))],
    "row 0: weights has a number that is not finite": lambda: [row(3, 0, math.nan)],
    "there are 5 rows; one call takes at most 4": lambda: [row(2)] * 5,
    "the rows have 120 tokens; one call takes at most 100": lambda: [row(40)] * 3,
}


@pytest.mark.parametrize("said", WRONG)
def test_rows_that_cannot_be_used_are_refused_by_number(said):
    made = engine(rows=4, tokens=100)
    made.create("a", LoraSettings(rank=4))
    with pytest.raises(EngineError, match=said):
        made.forward_backward("a", WRONG[said]())
    assert made._trained["a"].gradients is None
    made.forward_backward("a", [row(3)])


def test_names_settings_and_limits_that_are_not_allowed():
    made = engine(adapters=2, rank=8)
    made.create("a", LoraSettings(rank=8))
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'b'; there are: a"):
        made.forward("b", [row(3)])
    with pytest.raises(EngineError, match="there is an adapter 'a' already"):
        made.create("a", LoraSettings(rank=4))
    with pytest.raises(EngineError, match="LoRA rank is 9; at most 8 is allowed here"):
        made.create("b", LoraSettings(rank=9))
    made.create("b", LoraSettings(rank=1, targets=("attention",)))
    with pytest.raises(EngineError, match="holds at most 2 adapters: delete one, or raise the limit"):
        made.create("c", LoraSettings(rank=1))
    with pytest.raises(EngineError, match="there is no loss 'gspo'"):
        made.forward_backward("a", [row(3)], "gspo")
    with pytest.raises(EngineError, match="the loss ppo takes one target for each token, not 2"):
        made.forward_backward("a", [LossRow(torch.zeros(3).long(), torch.zeros(3, 2).long())], "ppo")
    (result,) = made.run([LossRequest(None, [row(3)], backward=True)])
    assert "the base model is not trained: name an adapter" in str(result)
    for wrong in ({"learning_rate": -1}, {"learning_rate": math.nan}, {"learning_rate": 1e-3, "beta2": 1.0}):
        with pytest.raises(EngineError, match=r"(learning_rate|beta2) of Adam is .*; it must be "):
            AdamSettings(**wrong)
    info = made.info("b")
    assert (info.rank, info.targets, info.step) == (1, ("attention",), 0)
    assert info.parameters == sum(each.numel() for each in made.bank["b"].parameters())
    made.delete("b")
    assert made.names() == ["a"]
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'b'"):
        made.delete("b")
