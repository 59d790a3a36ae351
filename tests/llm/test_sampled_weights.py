"""The identity of weights changes with every change of a number, and with nothing else."""

import pytest
import torch

from llm.engine_error import EngineError
from llm.sampled_weights import SampledWeights, WeightsIdentity
from model.causal_lm import CausalLM, DecoderShape
from model.lora import LoraBank, LoraSettings

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=64)


def test_identity_follows_changes_in_place_and_in_place_of():
    tensor = torch.nn.Parameter(torch.zeros(3))
    first, second = WeightsIdentity([tensor]), WeightsIdentity([tensor])
    assert first == second and hash(first) == hash(second) and first.unchanged
    with torch.no_grad():
        tensor.add_(1)
    assert not first.unchanged and WeightsIdentity([tensor]) != first
    assert WeightsIdentity([torch.zeros(3)]) != WeightsIdentity([torch.zeros(3)])


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_step_is_seen(optimizer):
    model = CausalLM(T0).draw(0)
    adapter = LoraBank(model).create("a", LoraSettings(rank=2))
    weights = SampledWeights(model, "a", adapter)
    weights.require_unchanged()
    for parameter in adapter.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer(adapter.parameters(), lr=0.1).step()
    with pytest.raises(EngineError, match="the model or its adapter 'a' was changed while it was sampled from"):
        weights.require_unchanged()


def test_an_adapter_that_gets_other_tensors_leaves_the_old_ones():
    model = CausalLM(T0).draw(0)
    adapter = LoraBank(model).create("a", LoraSettings(rank=2))
    weights = SampledWeights(model, "a", adapter)
    before = [parameter.clone() for parameter in weights.adapter.parameters()]
    adapter.load_state_dict({name: value + 1 for name, value in adapter.state_dict().items()}, assign=True)
    weights.require_unchanged()
    assert all(torch.equal(a, b) for a, b in zip(before, weights.adapter.parameters(), strict=True))
    assert SampledWeights(model, "a", adapter).identity != weights.identity
