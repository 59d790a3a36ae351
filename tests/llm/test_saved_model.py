"""Trained weights are read back by the record beside them: of a run that has not ended too, whatever its adapter is."""

import json

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from data.chat_renderer import Renderer
from llm.base_model import load
from llm.model_error import ModelError
from llm.model_record import RECORD, ModelRecord, read_record
from llm.saved_model import open_run
from model.adapted_causal_lm import AdaptedCausalLM
from model.lora import LoraAdapter, SitePart


def written(folder, base, module, adapter, **options):
    """Write what a run has in its folder at its first validation."""
    record = ModelRecord.of(base, Renderer(base.tokenizer, base.template, base.end_ids, options=options), adapter)
    record.write(folder)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "model.safetensors")
    return record


@pytest.mark.parametrize("ranks", ["one for all", "by layer", "some layers alone"])
def test_an_adapter_is_read_as_it_was(tmp_path, ranks):
    base = load("tiny:3", dtype=torch.bfloat16)
    sites = [site for site in base.model.linear_sites() if site.target != "unembedding"]
    sizes = {
        "one for all": [4] * len(sites), "by layer": [2 + number % 3 for number in range(len(sites))],
        "some layers alone": [3 * ("q_proj" in site.name and ".1." not in site.name) for site in sites],
    }[ranks]  # fmt: skip
    parts = [SitePart(site, rank, 5.0 + rank, rslora=True) for site, rank in zip(sites, sizes, strict=True)]
    parts = [part for part in parts if part.rank or "q_proj" in part.site.name]
    adapter = LoraAdapter(parts)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor.normal_()
    record = written(tmp_path, base, AdaptedCausalLM(base.model, adapter), adapter, tone="dry")
    assert read_record(tmp_path) == record and record.dtype == "bfloat16"
    found = open_run(tmp_path, "cpu")
    assert found.base.digest == "tiny:3, std 0.1" and found.base.model.unembedding().dtype == torch.bfloat16
    assert found.renderer.options == {"tone": "dry"} and found.base.end_ids == base.end_ids
    pairs = list(zip(adapter.tensors(), found.adapter.tensors(), strict=True))
    assert len(pairs) == sum(rank > 0 for rank in sizes)
    for (part, a, b), (other, its_a, its_b) in pairs:
        assert part == other and torch.equal(a, its_a) and torch.equal(b, its_b)


def test_whole_models_and_what_does_not_fit(tmp_path):
    base = load("tiny")
    with torch.no_grad():
        base.model.unembedding().mul_(2)
    written(tmp_path, base, base.model, None)
    found = open_run(tmp_path, "cpu")
    assert torch.equal(found.base.model.unembedding(), base.model.unembedding()) and found.adapter is None
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model.safetensors does not fit the model that language_model.json beside"):
        open_run(tmp_path, "cpu")
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(record | {"something_new": 1}))
    assert read_record(tmp_path) is not None  # a later version's
    for content in ("{", "[]", json.dumps({"base_model": "tiny"})):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(ModelError, match=r"language_model.json can't be read"):
            open_run(tmp_path, "cpu")
