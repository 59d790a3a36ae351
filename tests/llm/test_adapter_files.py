"""Adapters on disk against PEFT, in both directions, and what would be ignored is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm.adapter_files import load_adapter, save_adapter
from llm.hub_model import HubCausalLM
from llm.model_error import ModelError
from model.causal_lm import CausalLM, DecoderShape, PackedRows
from model.lora import AdapterRows, LoraAdapter, LoraBank, LoraSettings, SitePart

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

T0 = DecoderShape(vocabulary=261, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=64, context=128)
TOKENS = torch.randint(0, 261, (12,), generator=torch.Generator().manual_seed(1))
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def pair(tied: bool = False):
    """A model of ours, and transformers' with its weights."""
    ours = CausalLM(DecoderShape(**(vars(T0) | {"tied": tied}))).draw(0, std=0.2)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=261, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    theirs.load_state_dict(ours.state_dict() | {"lm_head.weight": ours.unembedding()})
    return ours, theirs.eval()


def logits_of(model: CausalLM, adapter: LoraAdapter) -> torch.Tensor:
    rows = AdapterRows((adapter,), (12,))
    return model.logits(model.hidden(TOKENS, PackedRows.of([12]), rows), rows)


def edit(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "tied"),
    [
        (dict(r=16, lora_alpha=32, use_rslora=True, target_modules=ALL), False),
        (dict(r=4, lora_alpha=6, target_modules=["q_proj", "lm_head"]), True),
        (dict(r=4, target_modules="all-linear", rank_pattern={"q_proj": 2, "1.mlp.up_proj": 8},
              alpha_pattern={"layers.0.self_attn.q_proj": 5, "v_proj": 64}), False),
        (dict(r=3, lora_alpha=32, target_modules=["v_proj"], layers_to_transform=[1]), False),
        (dict(r=4, lora_alpha=6, target_modules=r".*layers\.1\..*\.(q|up)_proj", use_rslora=True,
              rank_pattern={r"^model\.layers\.\d+\.mlp\..*": 2}, alpha_pattern={r".*up_proj": 7}), False),
    ],
    ids=["rslora", "tied unembedding", "patterns", "one layer", "expressions"],
)  # fmt: skip
def test_pefts_files_and_ours_are_the_same(tmp_path, settings, tied):
    ours, theirs = pair(tied)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **settings))
    wanted = wrapped(TOKENS[None]).logits[0]
    wrapped.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", ours)
    assert (logits_of(ours, adapter) - wanted).abs().max() < 1e-5
    assert (
        (wanted - wrapped.base_model.model.get_base_model()(TOKENS[None]).logits[0]).abs().max() > 0.1
        if hasattr(wrapped.base_model.model, "get_base_model")
        else True
    )
    if settings["r"] == 16:
        assert {part.scale for part in adapter.parts()} == {8.0}

    save_adapter(tmp_path / "ours", adapter, "some/base")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("theirs", "ours"))
    first = {name: value for name, value in first.items() if "base_layer" not in name}  # PEFT adds the unembedding
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    back = peft.PeftModel.from_pretrained(pair(tied)[1], tmp_path / "ours")
    assert (back(TOKENS[None]).logits[0] - wanted).abs().max() < 1e-5
    again = load_adapter(tmp_path / "ours", ours)
    assert torch.equal(logits_of(ours, again), logits_of(ours, adapter))


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_linear_layers_that_were_trained_whole_are_changes_of_full_rank(tmp_path, tied, rslora):
    ours, theirs = pair(tied)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], modules_to_save=["lm_head", "down_proj"],
                             init_lora_weights=False, use_rslora=rslora, task_type="CAUSAL_LM")  # fmt: skip
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(theirs, config).eval()
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad and "modules_to_save" in name:
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    wanted = wrapped(TOKENS[None]).logits[0]
    wrapped.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", ours)
    assert (logits_of(ours, adapter) - wanted).abs().max() < 1e-5
    without = load_adapter(tmp_path / "theirs", ours)
    for key, b in without.lora_B.items():
        b.mul_(0 if "q_proj" not in key else 1)
        without.lora_A[key].mul_(0 if "q_proj" not in key else 1)
    assert (logits_of(ours, without) - wanted).abs().max() > 0.1
    save_adapter(tmp_path / "ours", adapter)
    back = peft.PeftModel.from_pretrained(pair(tied)[1], tmp_path / "ours")
    assert (back(TOKENS[None]).logits[0] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("whole", ["embed_tokens", "norm"])
def test_other_layers_that_were_trained_whole_are_refused(tmp_path, whole):
    ours, theirs = pair()
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head", whole], task_type="CAUSAL_LM")
    peft.get_peft_model(theirs, config).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=rf"modules_to_save is \['lm_head', '{whole}'\]: .* and {whole} is none; merge"
    ):
        load_adapter(tmp_path, ours)


@torch.no_grad()
def test_peft_changes_no_layer_that_only_ends_in_the_same_name(tmp_path):
    """GPT-2 has a `c_proj` in its attention and another in its mlp."""
    config = transformers.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = HubCausalLM(transformers.GPT2LMHeadModel(config))
    for target, used in (("attention", {"c_attn", "c_proj"}), ("mlp", {"c_fc", "c_proj"})):
        adapter = LoraBank(model).create("a", LoraSettings(rank=2, targets=(target,)))
        save_adapter(tmp_path, adapter, sites=model.linear_sites())
        back = peft.PeftModel.from_pretrained(transformers.GPT2LMHeadModel(config), tmp_path)
        changed = {name.partition(".lora_A")[0] for name, _ in back.named_parameters() if "lora_A" in name}
        assert {name.removeprefix("base_model.model.") for name in changed} == {p.site.name for p in adapter.parts()}
        assert {name.rsplit(".", 1)[-1] for name in changed} == used


def written(folder, **settings) -> CausalLM:
    model = pair()[0]
    save_adapter(folder, LoraBank(model).create("a", LoraSettings(rank=2, **settings)))
    return model


def test_what_would_be_ignored_is_refused(tmp_path):
    model = written(tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    as_it_was, tensors = config.read_text(), load_file(weights)

    def refused(words: str) -> None:
        with pytest.raises(ModelError, match=words):
            load_adapter(tmp_path, model)
        config.write_text(as_it_was)
        save_file(tensors, weights)

    for changes, words in (
        ({"use_dora": True}, "use_dora is True, which is not supported"),
        ({"new_trick": {"a": 1}}, "new_trick is {'a': 1}, which is not supported and can't be ignored"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]: .* and lm_head is none"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base model too"),
        ({"init_lora_weights": "lora_ga"}, "changed the base model too"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern is damaged: missing"),
        ({"alpha_pattern": [1]}, "alpha_pattern is damaged: it is .1., not a mapping"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head'; it must be a list"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"r": 4}, "the config says rank 4, the tensors have 2"),
    ):
        edit(tmp_path, **changes)
        refused(words)
    edit(tmp_path, new_trick=None, other=False, lora_dropout=0.1, init_lora_weights="gaussian")
    load_adapter(tmp_path, model)
    config.write_text("{")
    refused("can't be read")

    save_file({key.replace("base_model.model.", "model."): value for key, value in tensors.items()}, weights)
    refused("28 tensors are not understood, first model.model.layers.0.mlp.down_proj.lora_A.weight, ")
    save_file(tensors | {"base_model.model.model.embed_tokens.weight": torch.zeros(3, 3)}, weights)
    refused("1 tensors are not understood, first base_model.model.model.embed_tokens.weight")
    save_file(tensors | {"base_model.model.lm_head.base_layer.weight": model.unembedding() + 1}, weights)
    refused("a weight of lm_head that is not the model's")
    save_file({key.replace("layers.1", "layers.7"): value for key, value in tensors.items()}, weights)
    refused("7 of the adapter's 14 layers are not in the model, first 'model.layers.7")
    save_file({key: value for key, value in tensors.items() if "q_proj.lora_B" not in key}, weights)
    refused("lacks its lora_A or lora_B")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * torch.nan}, weights)
    refused("has numbers that are not finite")
    weights.write_bytes(weights.read_bytes()[:100])
    refused("is damaged")
    weights.unlink()
    with pytest.raises(ModelError, match="no adapter_model.safetensors"):
        load_adapter(tmp_path, model)
    with pytest.raises(ModelError, match="no adapter_config.json"):
        load_adapter(tmp_path / "nothing", model)


def test_an_adapter_of_another_vocabulary_is_refused(tmp_path):
    written(tmp_path, targets=("unembedding",))
    other = CausalLM(DecoderShape(**(vars(T0) | {"vocabulary": 300}))).draw(0)
    with pytest.raises(ModelError, match="another vocabulary: at lm_head it is made for 32 inputs and 261 outputs"):
        load_adapter(tmp_path, other)


def test_half_precision_files_are_read_exactly(tmp_path):
    model = written(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    low = {key: value.bfloat16() for key, value in load_file(path).items()}
    save_file(low, path)
    adapter = load_adapter(tmp_path, model)
    for part, a, _ in adapter.tensors():
        assert a.dtype == torch.float32
        assert torch.equal(a, low[f"base_model.model.{part.site.name}.lora_A.weight"].float())
    assert isinstance(adapter.parts()[0], SitePart)
