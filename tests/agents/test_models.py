"""Which models fit: the table against published counts, the estimate against what a training keeps, and the command."""

import itertools
import json

import pytest
import torch
from tuning_tasks import make_task, tune

from agents.models.estimate import TuningPlan, adapter_weights, flops_of_token, memory_of
from agents.models.open_model import OpenModel, open_models
from agents.models.recommendation import Wishes, recommend
from model.adapted_causal_lm import AdaptedCausalLM
from model.causal_lm import CausalLM, DecoderShape
from model.lora import LoraBank, LoraSettings
from model.packed_attention import PackedRows


def model_of(width, layers, heads, kv_heads, head_dim, mlp_width, vocabulary) -> OpenModel:
    return OpenModel("here", "llama", "mit", True, "", (), 4096, layers, width, heads, kv_heads, head_dim, mlp_width,
                     vocabulary, True, 0)  # fmt: skip


@pytest.mark.parametrize("model", open_models(), ids=lambda model: model.name)
def test_sizes_of_the_table_make_the_parameters_that_are_published(model):
    assert model.parameters == pytest.approx(model.published, rel=2e-3)  # but for biases and norms


@pytest.mark.parametrize(
    "sizes", [(128, 2, 4, 2, 32, 512, 261), (192, 3, 6, 3, 32, 512, 1000), (128, 4, 4, 4, 32, 384, 261)]
)
@pytest.mark.parametrize("rank", [4, 32])
def test_activations_are_what_a_training_keeps_for_its_backward_pass(sizes, rank):
    """Counted, not measured: each tensor that autograd keeps, but for weights."""
    width, layers, heads, kv_heads, head_dim, mlp_width, vocabulary = sizes
    base = CausalLM(DecoderShape(vocabulary=vocabulary, width=width, layers=layers, heads=heads, kv_heads=kv_heads,
                                 head_dim=head_dim, mlp_width=mlp_width, context=256, tied=True))  # fmt: skip
    adapter = LoraBank(base, torch.device("cpu")).create("a", LoraSettings(rank, 32.0, ("attention", "mlp"), False, 0))
    module, tokens = AdaptedCausalLM(base, adapter), torch.arange(128) % vocabulary
    weights = {one.untyped_storage().data_ptr() for one in itertools.chain(base.parameters(), adapter.parameters())}
    kept: dict[int, int] = {}
    held = []  # so that no place in memory is used twice

    def keep(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    places = torch.arange(0, 128, 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(tokens, PackedRows.of([32] * 4), tokens[places], places)
    assert sum(one.numel() for one in adapter.parameters()) == adapter_weights(model_of(*sizes), rank)
    found = memory_of(model_of(*sizes), TuningPlan(128, rank))
    assert found.activations == pytest.approx(sum(kept.values()), rel=0.05)


def test_what_fits_comes_first_and_the_rest_says_why_not():
    small, free = 2 * 2**30, Wishes(frozenset({"de"}), False, 1000, 2 * 2**30)
    found = recommend(open_models(), free, 8 * 200, 200, 1e11)
    fitting = [one for one in found if not one.against]
    assert [one.model.parameters for one in fitting] == sorted((one.model.parameters for one in fitting), reverse=True)
    assert all(one.memory.total < small and one.model.free and not one.model.languages for one in fitting)
    why = {one.model.name: " ".join(one.against) for one in found if one.against}
    assert "not made for de" in why["HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert "research only" in why["Qwen/Qwen2.5-3B-Instruct"] and "GiB" in why["Qwen/Qwen3-14B"]


def test_all_weights_take_half_more_operations_than_an_adapter():
    model = open_models()[0]
    every = flops_of_token(model, TuningPlan(1, rank=0), 0)
    assert every == 6 * model.parameters
    assert flops_of_token(model, TuningPlan(1, rank=8), 0) == 4 * model.parameters + 6 * adapter_weights(model, 8)


def test_the_command_tells_candidates_and_tries_one(tmp_path):
    pytest.importorskip("langgraph")
    pytest.importorskip("transformers")
    make_task(tmp_path)
    told = tune("models", "task.yaml", "--memory", "4", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "12 rows of about" in told.stdout and "Qwen/Qwen3-0.6B: 0.60B parameters, apache-2.0" in told.stdout
    assert "licence qwen-research: research only" in told.stdout
    tried = tune("models", "task.yaml", "--try", "tiny", folder=tmp_path)
    assert tried.returncode == 0 and "tiny: one epoch of 12 rows: val_loss" in tried.stdout, tried.stderr
    wrong = tune("models", "task.yaml", "--try", json.dumps(str(tmp_path / "nothing")), folder=tmp_path)
    assert wrong.returncode == 3 and "can't be tuned here" in wrong.stderr and "Traceback" not in wrong.stderr
