"""The loss that is trained on, of rows laid end to end, against transformers and peft on the same rows with padding."""

import pytest
import torch
from transformers_twins import assert_gradients, fill, twins, with_peft

from data.token_batches import pack_rows
from data.token_row import TokenRow
from model.adapted_causal_lm import AdaptedCausalLM, OutsideOfState
from model.lora import LoraBank, LoraSettings
from model.token_losses import cross_entropy

# Of each row the tokens, and which of them are trained on: whole answers, none of the first ones, and a hole.
ROWS = ((9, (5, 6, 7, 8)), (30, (3, 4, 20, 29)), (2, (1,)), (17, tuple(range(1, 17))))


def token_rows() -> list[TokenRow]:
    draw = torch.Generator().manual_seed(5)
    rows = []
    for length, trained in ROWS:
        weights = torch.zeros(length)
        weights[list(trained)] = 1.0
        rows.append(TokenRow(torch.randint(0, 261, (length,), generator=draw, dtype=torch.int32), weights))
    return rows


def padded(rows: list[TokenRow]) -> dict[str, torch.Tensor]:
    """What a collator gives transformers: ids, a mask, and labels of -100 where nothing is trained on."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length], mask[number, :length] = row.ids.long(), 1
        labels[number, :length] = torch.where(row.weights != 0, row.ids.long(), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["llama", "llama, tied", "mistral, window", "qwen2", "qwen3"])
def test_loss_and_gradients_are_those_of_peft_with_padding(name, recompute):
    theirs, ours = twins(name)
    adapter = LoraBank(ours).create("a", LoraSettings(rank=4, alpha=6))
    fill(adapter)
    twin = with_peft(theirs, adapter)
    model = AdaptedCausalLM(ours, adapter)
    if recompute:
        model.recomputable_layers()
    rows = token_rows()
    wanted = twin(**padded(rows)).loss
    wanted.backward()

    batch = pack_rows(rows)
    loss = cross_entropy(model(batch.tokens, batch.rows, batch.targets, batch.places), batch.weights)
    loss = loss / batch.total_weight
    loss.backward()
    assert batch.total_weight == 25
    assert abs(loss - wanted) < 1e-5 and loss > 1
    assert_gradients(adapter, {name: parameter.grad for name, parameter in adapter.named_parameters()}, twin)

    packed = [parameter.grad.clone() for parameter in adapter.parameters()]
    adapter.zero_grad()
    for row in rows:  # each by itself: the sum is the same
        one = pack_rows([row])
        (cross_entropy(model(one.tokens, one.rows, one.targets, one.places), one.weights) / 25).backward()
    for parameter, grown in zip(adapter.parameters(), packed, strict=True):
        assert (parameter.grad - grown).abs().max() < 1e-6


def test_a_frozen_model_is_no_part_of_the_state():
    _, ours = twins("llama")
    model = AdaptedCausalLM(ours, LoraBank(ours).create("a", LoraSettings(rank=4)))
    assert all(name.startswith("adapter.lora_") for name in model.state_dict())
    assert model.base is ours and isinstance(model._base, OutsideOfState)
    assert sum(parameter.numel() for parameter in model.parameters()) < 20_000
