"""Whole models on disk: an adapter merged into its base, with tokenizer, template, ids that end, and a model card."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from llm.adapter_files import CONFIG as ADAPTER_CONFIG
from llm.adapter_files import save_adapter
from llm.base_model import BaseModel
from llm.hub_config import config_of
from llm.hub_model import HubCausalLM
from llm.model_card import model_card
from llm.model_error import ModelError
from llm.model_record import ModelRecord
from model.causal_lm import CausalLM
from model.lora import AdapterRows, LoraAdapter, SitePart
from model.packed_attention import PackedRows
from storage.files import output_errors, write_atomically


@torch.no_grad()
def merged(model: CausalLM, adapter: LoraAdapter) -> CausalLM:
    """Return a model with an adapter's changes in its weights.

    Each changed weight is `(W.float() + scale * B @ A).to(dtype)`: computed in fp32 and rounded once. Other weights are
    shared with the model. An adapter of the unembedding unties it from the embedding.

    Args:
        model: the base model; it stays as it is.
        adapter: the adapter.

    Returns:
        A model of the same sizes and dtype.
    """
    state = dict(model.state_dict())
    shape = model.shape
    if shape.tied and any(part.site.name == "lm_head" for part, _, _ in adapter.tensors()):
        shape = replace(shape, tied=False)
        state["lm_head.weight"] = model.unembedding().detach()
    for part, a, b in adapter.tensors():
        name = f"{part.site.name}.weight"
        state[name] = _changed(state[name], part, a, b)
    whole = CausalLM(shape, "meta", model.unembedding().dtype)
    whole.load_state_dict(state, assign=True)
    return whole.eval().requires_grad_(False)


def _changed(weight: Tensor, part: SitePart, a: Tensor, b: Tensor) -> Tensor:
    """Return a weight with an adapter's change in it."""
    a, b = a.to(weight.device), b.to(weight.device)
    return (weight.float() + part.scale * b @ a).to(weight.dtype)


@torch.no_grad()
def largest_change(model: CausalLM, adapter: LoraAdapter, whole: CausalLM) -> float:
    """Return the largest difference of a logit between a merged model and its base with the adapter beside it.

    Args:
        model: the base model.
        adapter: the adapter.
        whole: both in one.

    Returns:
        The largest absolute difference over 32 tokens drawn from a fixed seed; rounding is all that it should show.
    """
    count = 32
    drawn = torch.randint(0, model.shape.vocabulary, (count,), generator=torch.Generator().manual_seed(0))
    tokens = drawn.to(model.unembedding().device)
    rows, chosen = PackedRows.of([count], device=tokens.device), AdapterRows((adapter,), (count,))
    apart = model.logits(model.hidden(tokens, rows, chosen), chosen)
    together = whole.logits(whole.hidden(tokens, rows))
    return float((apart.float() - together.float()).abs().max())


@dataclass(frozen=True)
class ExportedModel:
    """What an export was.

    Attributes:
        folder: where it lies.
        largest_logit_change: of merging, by rounding; 0 where nothing was merged.
        untied: whether the unembedding is apart from the embedding now and was not before.
    """

    folder: Path
    largest_logit_change: float
    untied: bool


def export_model(
    folder: Path,
    base: BaseModel,
    adapter: LoraAdapter | None = None,
    facts: Mapping[str, str] | None = None,
    record: ModelRecord | None = None,
) -> ExportedModel:
    """Write a whole model that transformers loads: weights, config, tokenizer, template, generation settings, card.

    Args:
        folder: where to; it may hold an earlier export, which is written over, but no adapter.
        base: the model with all that belongs to it.
        adapter: what is merged into it; None for the model as it is.
        facts: what the model card tells, such as settings, digest of the data, figures.
        record: how the model was trained to be asked, for a chat with it; None for none.

    Returns:
        What was written.

    Raises:
        ModelError: the folder holds an adapter, which loaders would apply to the merged model once more; or the adapter
            can't be merged into this model of transformers.
        OutputError: a file can't be written.
    """
    if (folder / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER_CONFIG}), which loaders would apply to the merged model once more: "
            "export to another folder"
        )
    if isinstance(base.model, HubCausalLM):
        change, untied = _write_hub_model(folder, base, base.model, adapter), False
    else:
        whole = base.model if adapter is None else merged(base.model, adapter)
        change = 0.0 if adapter is None else largest_change(base.model, adapter, whole)
        untied = base.model.shape.tied and not whole.shape.tied
        _write_weights(folder, whole)
        _write_json(folder / "config.json", base.config | _config_of(base, whole) | _special_ids(base))
    _write_json(folder / "generation_config.json", _special_ids(base))
    _write_tokenizer(folder, base)
    if record is not None:
        replace(record, adapter=None).write(folder)
    write_atomically(
        folder / "README.md", model_card(base, "model" if adapter is None else "merged", facts or {}).encode()
    )
    return ExportedModel(folder, change, untied)


def export_adapter(
    folder: Path,
    base: BaseModel,
    adapter: LoraAdapter,
    facts: Mapping[str, str] | None = None,
    record: ModelRecord | None = None,
) -> None:
    """Write an adapter as PEFT does, with what its answers need beside it: tokenizer, template, ids that end, card.

    Args:
        folder: where to; what an earlier export wrote is written over.
        base: the model that the adapter is of.
        adapter: the adapter; its numbers are written as they are.
        facts: what the model card tells, such as settings, digest of the data, figures.
        record: which base model the adapter is of, to the bit, and how it was trained to be asked; None for none.

    Raises:
        OutputError: a file can't be written.
    """
    save_adapter(folder, adapter, base.source, base.model.linear_sites())
    _write_json(folder / "generation_config.json", _special_ids(base))
    _write_tokenizer(folder, base)
    if record is not None:
        record.write(folder)
    write_atomically(folder / "README.md", model_card(base, "adapter", facts or {}).encode())


def _config_of(base: BaseModel, whole: CausalLM) -> dict[str, Any]:
    """Return what the config must say of the weights; what else the source's config says is kept."""
    name = str(whole.unembedding().dtype).removeprefix("torch.")
    if base.config.get("model_type"):
        return {"tie_word_embeddings": whole.shape.tied, "dtype": name, "torch_dtype": name}
    return config_of(whole.shape, name)


def _special_ids(base: BaseModel) -> dict[str, Any]:
    ids: dict[str, Any] = {"eos_token_id": list(base.end_ids)}
    for name in ("bos_token_id", "pad_token_id"):
        found = getattr(base.tokenizer, name, None)
        if found is not None:
            ids[name] = found
    return ids


def _write_weights(folder: Path, model: CausalLM) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(
        folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )  # written as it goes: a copy of the bytes would need the memory of the model again


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _write_tokenizer(folder: Path, base: BaseModel) -> None:
    before = base.tokenizer.chat_template
    try:
        base.tokenizer.chat_template = base.template
        with output_errors(folder), tempfile.TemporaryDirectory() as temporary:
            base.tokenizer.save_pretrained(temporary)
            _make_readable_for_all(Path(temporary), base.template)
            for file in sorted(Path(temporary).rglob("*")):
                if file.is_file():
                    write_atomically(folder / file.relative_to(temporary), file.read_bytes())
    finally:
        base.tokenizer.chat_template = before


def _make_readable_for_all(folder: Path, template: str) -> None:
    """Change what version 5 of transformers writes so that versions before it read the same tokenizer and template."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only"):  # how this program loaded it
        config.pop(key, None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config | {"chat_template": template}, indent=2, ensure_ascii=False), encoding="utf-8")


def require_mergeable(base: BaseModel, adapter: LoraAdapter) -> None:
    """Refuse an adapter that can't be merged into its model; to be asked before it is trained.

    Args:
        base: the model.
        adapter: the adapter; only its layers are looked at.

    Raises:
        ModelError: it changes the unembedding of a model of transformers that is the embedding too.
    """
    if isinstance(base.model, CausalLM):
        return
    inner = base.model.inner
    tied = inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    shared = next((part.site.name for part in adapter.parts() if part.site.target == "unembedding"), None)
    if tied and shared is not None:
        raise ModelError(
            f"{base.source}: {shared} shares its weight with the embedding, so that its adapter can't be merged: train "
            "without the unembedding (lora_targets), or keep the adapter apart (merge = off)"
        )


@torch.no_grad()
def _write_hub_model(folder: Path, base: BaseModel, model: HubCausalLM, adapter: LoraAdapter | None) -> float:
    inner = model.inner
    changed: dict[str, Tensor] = {}
    if adapter is not None:
        require_mergeable(base, adapter)
        for part, a, b in adapter.tensors():
            changed[part.site.name] = _changed(model.site_weight(part.site.name), part, a, b)
    saved = {name: model.site_weight(name).clone() for name in changed}
    probe = torch.arange(8, device=inner.device)
    rows = PackedRows.of([8], device=probe.device)
    try:
        chosen = AdapterRows((adapter,), (8,))
        before = model.logits(model.hidden(probe, rows, chosen), chosen)
        for name, weight in changed.items():
            model.site_weight(name).copy_(weight)
        after = model.logits(model.hidden(probe, rows))
        with output_errors(folder):
            inner.save_pretrained(folder)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _write_json(folder / "config.json", config | _special_ids(base))
    finally:
        for name, weight in saved.items():
            model.site_weight(name).copy_(weight)
    return float((before.float() - after.float()).abs().max())
