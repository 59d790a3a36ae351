"""Which models fit: the table against published counts, the estimate against what a training keeps, and the command."""

import itertools
import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
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
    ("sizes", "rank", "dtype"),
    [
        ((128, 2, 4, 2, 32, 512, 261), 4, torch.float32),
        ((192, 3, 6, 3, 32, 512, 1000), 32, torch.float32),
        ((64, 4, 8, 4, 32, 384, 20_000), 4, torch.float32),  # queries are wider than states; most is in use in the loss
        ((128, 4, 4, 4, 32, 384, 261), 32, torch.bfloat16),
    ],
)
def test_what_is_in_use_at_the_peak_is_counted(sizes, rank, dtype, tmp_path):
    """By torch's allocator, not by the process: all that a forward and a backward pass allocate, at their worst."""
    width, layers, heads, kv_heads, head_dim, mlp_width, vocabulary = sizes
    shape = DecoderShape(vocabulary=vocabulary, width=width, layers=layers, heads=heads, kv_heads=kv_heads,
                         head_dim=head_dim, mlp_width=mlp_width, context=256, tied=True)  # fmt: skip
    base = CausalLM(shape, dtype=dtype).draw(0)
    adapter = LoraBank(base, torch.device("cpu")).create("a", LoraSettings(rank, 32.0, ("attention", "mlp"), False, 0))
    module, tokens = AdaptedCausalLM(base, adapter), torch.arange(512) % vocabulary
    weights = {one.untyped_storage().data_ptr() for one in itertools.chain(base.parameters(), adapter.parameters())}
    kept: dict[int, int] = {}
    held = []  # so that no place in memory is used twice

    def keep(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows, places = PackedRows.of([128] * 4), torch.arange(512)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(tokens, rows, tokens, places)
    assert sum(one.numel() for one in adapter.parameters()) == adapter_weights(model_of(*sizes), rank)
    found = memory_of(model_of(*sizes), TuningPlan(512, rank, dtype.itemsize))
    assert found.activations == pytest.approx(sum(kept.values()), rel=0.01)
    held.clear()
    if dtype != torch.float32:
        return  # how products of bf16 are made is the processor's own
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        module(tokens, rows, tokens, places).sum().backward()
    seen.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = [each for each in events if each["name"] == "[memory]"]
    changes.sort(key=lambda each: float(each["ts"]))
    most = max(itertools.accumulate(each["args"]["Bytes"] for each in changes))
    assert found.step == pytest.approx(most, rel=0.02)


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


def test_the_command_tells_candidates(tmp_path):
    pytest.importorskip("langgraph")
    make_task(tmp_path)
    told = tune("models", "task.yaml", "--memory", "4", folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "12 rows of about" in told.stdout and "Qwen/Qwen3-0.6B: 0.60B parameters, apache-2.0" in told.stdout
    assert "licence qwen-research: research only" in told.stdout
    for wrong in ("-3", "nan", "much"):
        refused = tune("models", "task.yaml", f"--memory={wrong}", folder=tmp_path)
        assert refused.returncode == 2 and f"{wrong} is no memory; it is a number of GiB" in refused.stderr


@pytest.mark.slow
def test_the_command_tries_one(tmp_path):
    pytest.importorskip("langgraph")
    pytest.importorskip("transformers")
    make_task(tmp_path)
    tried = tune("models", "task.yaml", "--try", "tiny", folder=tmp_path)
    assert tried.returncode == 0 and "tiny: one epoch of 12 rows: val_loss" in tried.stdout, tried.stderr
    wrong = tune("models", "task.yaml", "--try", json.dumps(str(tmp_path / "nothing")), folder=tmp_path)
    assert wrong.returncode == 3 and "can't be tuned here" in wrong.stderr and "Traceback" not in wrong.stderr
