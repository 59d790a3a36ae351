"""States as JSON and tensors."""

import json

import pytest
import torch
from torch import nn

from storage.plain_state import flatten, restore


def test_plain_state_brings_back_an_optimizer_exactly():
    model, data = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double(), torch.randn(22, 4).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
    (model(data) - data).square().mean().backward()
    optimizer.step()
    tree, tensors = flatten(optimizer.state_dict())
    back = restore(json.loads(json.dumps(tree)), tensors)
    assert back["param_groups"] == optimizer.state_dict()["param_groups"], "tuples stay tuples"
    assert list(back["state"]) == [0, 1, 2, 3], "integer keys stay integers"
    for index, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(back["state"][index][name], state[name]) for name in state)


def test_plain_state_says_where_something_else_is():
    with pytest.raises(TypeError, match=r"state\.a\.1 is of type object"):
        flatten({"a": [1, object()]})
