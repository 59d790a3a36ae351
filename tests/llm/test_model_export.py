"""Merged and exported models against the formula, transformers, and the model with its adapter beside it."""

import json

import pytest
import torch

from llm.base_model import load
from llm.model_error import ModelError
from llm.model_export import export_model, merged, require_mergeable
from llm.tiny_model import byte_tokenizer
from model.causal_lm import PackedRows
from model.lora import AdapterRows, LoraBank, LoraSettings
from storage.errors import OutputError

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, 261, (12,), generator=torch.Generator().manual_seed(1))


def adapted(base, *targets, std=0.2):
    """An adapter that changes something."""
    adapter = LoraBank(base.model).create("a", LoraSettings(rank=4, alpha=6, targets=targets or ("attention", "mlp")))
    with torch.no_grad():
        for b in adapter.lora_B.values():
            b.normal_(0, std, generator=torch.Generator().manual_seed(b.numel()))
    return adapter


def logits_of(model, adapter=None) -> torch.Tensor:
    rows = AdapterRows((adapter,), (12,))
    return model.logits(model.hidden(TOKENS, PackedRows.of([12]), rows), rows)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", [("attention", "mlp"), ("unembedding",), ("attention", "mlp", "unembedding")])
def test_merged_export_is_the_model_with_its_adapter(tmp_path, dtype, targets):
    base = load("tiny", dtype=dtype)
    adapter = adapted(base, *targets)
    before = base.model.unembedding().clone()
    told = export_model(tmp_path, base, adapter, {"data digest": "abc"})
    whole = merged(base.model, adapter)
    for part, a, b in adapter.tensors():
        weight = (
            base.model.unembedding()
            if part.site.name == "lm_head"
            else base.model.state_dict()[f"{part.site.name}.weight"]
        )
        assert torch.equal(
            whole.state_dict()[f"{part.site.name}.weight"], (weight.float() + part.scale * b @ a).to(dtype)
        )
    assert torch.equal(base.model.unembedding(), before)
    assert told.untied == ("unembedding" in targets)
    if dtype == torch.float32:
        assert told.largest_logit_change < 4e-6 * logits_of(base.model, adapter).abs().max()  # of about 5

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    again = load(str(tmp_path), dtype=dtype)
    assert torch.equal(logits_of(again.model), logits_of(whole))
    if dtype == torch.float32:
        wanted = logits_of(base.model, adapter)
        assert (theirs(TOKENS[None]).logits[0] - wanted).abs().max() < 1e-5
        assert (wanted - logits_of(base.model)).abs().max() > 0.01
    assert not (tmp_path / "adapter_config.json").exists()
    card = (tmp_path / "README.md").read_text()
    assert "| data digest | abc |" in card and "tiny:0" in card


def test_export_keeps_template_tokenizer_and_all_ids_that_end(tmp_path):
    base = load("tiny")
    export_model(tmp_path, base)
    again = load(str(tmp_path))
    assert again.template == base.template and again.end_ids == (257, 260)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [257, 260]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == base.template
    chat = [{"role": "user", "content": "Hi é"}]
    text = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nHi é<|im_end|>\n<|im_start|>assistant\n"
    assert theirs.encode(text) == base.tokenizer.encode(text)
    # Versions of transformers before 5 know no TokenizersBackend, and some read no chat_template.jinja.
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast" and written["chat_template"] == base.template
    assert (tmp_path / "chat_template.jinja").read_text() == base.template
    assert not written.keys() & {"backend", "is_local", "local_files_only"}


def test_text_begins_in_the_export_as_it_did(tmp_path):
    from tokenizers import processors

    base = load("tiny")
    base.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 256)]
    )
    export_model(tmp_path, base)
    for tokenizer in (transformers.AutoTokenizer.from_pretrained(tmp_path), load(str(tmp_path)).tokenizer):
        assert tokenizer.encode("Hi") == [256, 72, 105]


@torch.no_grad()
def test_transformers_stops_at_the_end_of_turn(tmp_path):
    """The unembedding is made to say <|im_end|> whatever is asked."""
    base = load("tiny")
    base.model.model.norm.weight.zero_()
    base.model.model.embed_tokens.weight[260] += 1
    base.model.model.norm.weight.fill_(1)
    adapter = adapted(base, "unembedding")
    head = adapter.lora_B["lm_head"]
    head.zero_()
    export_model(tmp_path, base, adapter)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    said = model.generate(
        torch.tensor([[259, 260]]), attention_mask=torch.ones(1, 2), max_new_tokens=9, do_sample=False
    )
    assert said[0, 2:].tolist() == [260]


def test_added_tokens_are_in_the_export(tmp_path):
    """A model whose embedding was made larger for a new token, with a tokenizer that has it."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=261, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2)
    config = transformers.LlamaConfig(**sizes, intermediate_size=64, tie_word_embeddings=True)
    theirs, tokenizer = transformers.LlamaForCausalLM(config), byte_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    theirs.resize_token_embeddings(len(tokenizer))
    theirs.save_pretrained(tmp_path / "in")
    tokenizer.save_pretrained(tmp_path / "in")
    base = load(str(tmp_path / "in"))
    export_model(tmp_path / "out", base, adapted(base))
    out = load(str(tmp_path / "out"))
    assert out.tokenizer.encode("<tool>") == [261] and out.model.unembedding().shape == (262, 32)
    assert torch.equal(out.model.unembedding(), theirs.get_input_embeddings().weight)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["GPT2", "Gemma"])
def test_other_architectures_are_merged_too(tmp_path, kind):
    torch.manual_seed(0)
    if kind == "GPT2":
        config = transformers.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        theirs = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.GemmaConfig(
            vocab_size=261, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, head_dim=8, max_position_embeddings=64,
        )  # fmt: skip
        theirs = transformers.GemmaForCausalLM(config)
    theirs.config.eos_token_id = 257
    theirs.save_pretrained(tmp_path / "in")
    byte_tokenizer().save_pretrained(tmp_path / "in")
    base = load(str(tmp_path / "in"))
    before = logits_of(base.model)
    adapter = adapted(base)
    wanted = logits_of(base.model, adapter)
    told = export_model(tmp_path / "out", base, adapter)
    assert told.largest_logit_change < 1e-4 and torch.equal(logits_of(base.model), before)
    assert (logits_of(load(str(tmp_path / "out")).model) - wanted).abs().max() < 1e-4
    assert (wanted - before).abs().max() > 1e-3
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == list(base.end_ids)
    for ask in (require_mergeable, lambda *given: export_model(tmp_path / "other", *given)):
        with pytest.raises(ModelError, match="shares its weight with the embedding.*merge = off"):
            ask(base, adapted(base, "unembedding"))


def test_folders_that_do_not_do(tmp_path):
    base = load("tiny")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="would apply to the merged model once more"):
        export_model(tmp_path, base)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file where a folder should be"):
        export_model(tmp_path / "file" / "model", base)


@torch.no_grad()
def test_export_of_a_model_whose_weights_are_packed(tmp_path):
    """Packing puts weights side by side in one memory, which safetensors must not take for one tensor."""
    base = load("tiny")
    base.model.requires_grad_(False).pack_weights()
    export_model(tmp_path, base)
    wanted, found = base.model.state_dict(), load(str(tmp_path)).model.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    sizes = sum(parameter.nbytes for parameter in base.model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.1 * sizes
