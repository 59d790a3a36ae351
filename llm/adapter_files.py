"""Adapters on disk: PEFT's files, read and written, so that every tool that knows PEFT's knows ours."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from llm.model_error import ModelError
from model.lora import AdaptableModel, LinearSite, LoraAdapter, SitePart
from storage.files import write_atomically

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Keys of adapter_config.json that don't change what an adapter computes, whatever they say ...
_HARMLESS = set(
    """task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r target_modules
    exclude_modules lora_alpha lora_dropout fan_in_fan_out use_rslora layers_to_transform layers_pattern rank_pattern
    alpha_pattern megatron_core loftq_config eva_config lora_ga_config qalora_group_size ensure_weight_tying
    runtime_config""".split()  # noqa: SIM905 - a list of 27 lines says no more
)
# ... and ways of starting an adapter that change the base model too, which its files then say nothing of.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def save_adapter(
    folder: Path, adapter: LoraAdapter, base_model: str | None = None, sites: Sequence[LinearSite] = ()
) -> None:
    """Write an adapter as PEFT does: adapter_config.json and adapter_model.safetensors.

    Args:
        folder: where to; made where it isn't there.
        adapter: the adapter; its numbers are written as they are, to the bit.
        base_model: name of the base model for the config, so that PEFT finds it.
        sites: the model's layers; where others than the adapter's end in the same name (`c_proj` of GPT-2's attention
            and of its mlp), the config has their whole names, so that PEFT changes no more than these.

    Raises:
        OutputError: a file can't be written; what was there is as it was.
    """
    tensors: dict[str, Tensor] = {}
    for part, a, b in adapter.tensors():
        tensors[f"{_PREFIX}{part.site.name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"{_PREFIX}{part.site.name}.lora_B.weight"] = b.detach().cpu().contiguous()
    config = json.dumps(adapter_config(adapter, base_model, sites), indent=2, sort_keys=True)
    write_atomically(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, config.encode())


def adapter_config(adapter: LoraAdapter, base_model: str | None, sites: Sequence[LinearSite] = ()) -> dict[str, Any]:
    """Return what PEFT's adapter_config.json says of an adapter.

    Args:
        adapter: the adapter.
        base_model: name of its base model.
        sites: the model's layers, so that no other of them is meant by a name; see `save_adapter`.
    """
    parts = adapter.parts()
    used = [part for part in parts if part.rank]
    (rank, _), *_ = Counter(part.rank for part in used).most_common(1)
    (alpha, _), *_ = Counter(part.alpha for part in used).most_common(1)
    names = {part.site.name for part in used}
    ends = {_last(name) for name in names}
    others = {*(part.site.name for part in parts), *(site.name for site in sites)} - names
    whole = not any(_last(name) in ends for name in others)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": used[0].rslora,
        "fan_in_fan_out": False,
        "target_modules": sorted(ends if whole else names),
        "rank_pattern": {re.escape(part.site.name): part.rank for part in used if part.rank != rank},
        "alpha_pattern": {re.escape(part.site.name): _plain(part.alpha) for part in used if part.alpha != alpha},
        "modules_to_save": None,
    }


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def empty_adapter(
    config: Mapping[str, Any], model: AdaptableModel, device: torch.device | str | None = None
) -> LoraAdapter:
    """Make an adapter as `adapter_config` tells of it, whose numbers are all zero.

    Args:
        config: what `adapter_config` returned.
        model: the model it is for.
        device: where its tensors go.

    Returns:
        The adapter in fp32, with the rank and the scale of each layer.
    """
    wanted = tuple(config["target_modules"])
    parts = []
    for site in model.linear_sites():
        if site.name in wanted or site.name.endswith(tuple(f".{name}" for name in wanted)):
            rank = _by_pattern(config["rank_pattern"], site.name, config["r"])
            alpha = _by_pattern(config["alpha_pattern"], site.name, config["lora_alpha"])
            parts.append(SitePart(site, rank, float(alpha), bool(config["use_rslora"])))
        else:
            parts.append(SitePart(site, 0, 0.0))
    return LoraAdapter(_of_touched_kinds(parts), device)


def _of_touched_kinds(parts: Sequence[SitePart]) -> list[SitePart]:
    """Leave out kinds of layers that an adapter doesn't touch at all."""
    kinds = {_kind(part) for part in parts if part.rank}
    return [part for part in parts if _kind(part) in kinds]


def _kind(part: SitePart) -> str:
    return re.sub(r"\d+", "*", part.site.name)


def base_of(folder: Path) -> str | None:
    """Return the name of the base model that an adapter's files give; None where they give none.

    Args:
        folder: folder with adapter_config.json.

    Raises:
        ModelError: it can't be read, or the adapter is of a kind that can't be used.
    """
    name = _read_config(folder).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def load_adapter(folder: Path, model: AdaptableModel, device: torch.device | str | None = None) -> LoraAdapter:
    """Read an adapter that PEFT, or `save_adapter`, has written.

    Args:
        folder: folder with adapter_config.json and adapter_model.safetensors.
        model: the model it is for.
        device: where its tensors go.

    Returns:
        The adapter in fp32, with the rank and the scale of each layer. A linear layer that was trained whole
            (`modules_to_save`) is a change of full rank.

    Raises:
        ModelError: a file is missing or damaged, the adapter is of a kind or has a part that would be ignored, or it is
            of a model of other sizes.
    """
    config = _read_config(folder)
    pairs, saved = _read_pairs(folder, model, tuple(config.get("modules_to_save") or ()))
    rslora = bool(config.get("use_rslora"))
    by_name = {site.name: site for site in model.linear_sites()}
    strange = [name for name in pairs if name not in by_name]
    if strange:
        raise ModelError(
            f"{folder}: {len(strange)} of the adapter's {len(pairs)} layers are not in the model, first "
            f"{strange[0]!r}; the model's layers are named as {next(iter(by_name), 'none')!r}"
        )
    parts = []
    for name, site in by_name.items():
        if name not in pairs:
            parts.append(SitePart(site, 0, 0.0))
            continue
        a, b = pairs[name]
        if a.shape[1] != site.inputs or b.shape[0] != site.outputs or a.shape[0] != b.shape[1]:
            told = "another vocabulary" if site.target == "unembedding" else "other sizes"
            raise ModelError(
                f"{folder}: the adapter is of a model with {told}: at {name} it is made for {a.shape[1]} inputs and "
                f"{b.shape[0]} outputs, the model has {site.inputs} and {site.outputs}"
            )
        if name in saved:  # its factors are the change itself, so that their scale must be 1
            parts.append(SitePart(site, a.shape[0], a.shape[0] ** (0.5 if rslora else 1.0), rslora))
            continue
        rank = _by_pattern(config.get("rank_pattern"), name, config.get("r"))
        if a.shape[0] != rank:
            raise ModelError(f"{folder}: at {name} the config says rank {rank}, the tensors have {a.shape[0]}")
        alpha = _by_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha"))
        if not isinstance(alpha, int | float):
            raise ModelError(f"{folder / CONFIG}: lora_alpha is {alpha!r}; it must be a number")
        parts.append(SitePart(site, rank, float(alpha), rslora))
    adapter = LoraAdapter(_of_touched_kinds(parts), device)
    with torch.no_grad():
        for part, a, b in adapter.tensors():
            a.copy_(pairs[part.site.name][0])
            b.copy_(pairs[part.site.name][1])
    return adapter


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no adapter: there is no {CONFIG} in it") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise ModelError(f"{path}: peft_type is {kind!r}; only LORA adapters can be used")
    if config.get("bias", "none") != "none":
        raise ModelError(
            f"{path}: bias is {config['bias']!r}: biases that were trained too can't be used; merge with PEFT"
        )
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ModelError(
            f"{path}: init_lora_weights is {start!r}, which changed the base model too: convert the adapter with PEFT "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for key in ("rank_pattern", "alpha_pattern"):
        try:
            for pattern in _mapping(config.get(key)):
                re.compile(pattern)
        except (TypeError, re.error) as error:
            raise ModelError(f"{path}: {key} is damaged: {error}") from error
    whole = config.get("modules_to_save") or []
    if not isinstance(whole, list) or not all(isinstance(name, str) for name in whole):
        raise ModelError(f"{path}: modules_to_save is {whole!r}; it must be a list of names")
    known = _HARMLESS | {"bias", "modules_to_save", "init_lora_weights"}
    for key, value in config.items():
        if key not in known and value:
            raise ModelError(f"{path}: {key} is {value!r}, which is not supported and can't be ignored")
    return config


def _read_pairs(
    folder: Path, model: AdaptableModel, whole: Sequence[str]
) -> tuple[dict[str, tuple[Tensor, Tensor]], set[str]]:
    """Return (A, B) in fp32 by the name of the layer; every tensor of the file must be one of them.

    Args:
        folder: the adapter's.
        model: the model it is for.
        whole: ends of the names of layers that were trained whole.

    Returns:
        The pairs, and names of those that stand for a layer which was trained whole.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ModelError(f"{folder} has its weights in adapter_model.bin only, which may run code when it is read: "
                             "save it again with PEFT")  # fmt: skip
        raise ModelError(f"{folder} holds no adapter: there is no {WEIGHTS} in it")
    halves: dict[str, dict[str, Tensor]] = {}
    saved: set[str] = set()
    known = {site.name: site for site in model.linear_sites()}
    strange = []
    try:
        with safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                found = re.fullmatch(rf"{re.escape(_PREFIX)}(.+)\.lora_([AB])(?:\.default)?\.weight", key)
                other = re.fullmatch(rf"{re.escape(_PREFIX)}(.+?)(\.base_layer)?\.weight", key)
                if found is not None:
                    halves.setdefault(found[1], {})[found[2]] = stored.get_tensor(key).float()
                elif other is not None and other[1] in known and other[2]:
                    _check_base(path, other[1], stored.get_tensor(key), model.site_weight(other[1]))
                elif other is not None and other[1] in known and other[1].endswith(tuple(whole)):
                    halves[other[1]] = _change_of(path, other[1], stored.get_tensor(key), model.site_weight(other[1]))
                    saved.add(other[1])
                else:
                    strange.append(key)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    missing = [end for end in whole if not any(name.endswith(end) for name in saved)]
    if whole and (missing or strange):
        raise ModelError(
            f"{folder / CONFIG}: modules_to_save is {list(whole)}: of layers that were trained whole, linear ones of "
            f"the model can be used, and {', '.join(missing) or strange[0]} is none; merge the adapter with PEFT "
            "(merge_and_unload) and load the merged model"
        )
    if strange:
        raise ModelError(
            f"{path}: {len(strange)} tensors are not understood, first {', '.join(strange[:3])}. Allowed are "
            f"{_PREFIX}LAYER.lora_A.weight and .lora_B.weight of linear layers"
        )
    single = [name for name, pair in halves.items() if len(pair) != 2]
    if single or not halves:
        raise ModelError(f"{path}: {single[0] if single else 'the file'} lacks its lora_A or lora_B")
    for name, pair in halves.items():
        if not all(tensor.isfinite().all() for tensor in pair.values()):  # synchronisation on a GPU
            raise ModelError(f"{path}: {name} has numbers that are not finite: the training it comes from diverged")
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}, saved


def _change_of(path: Path, name: str, stored: Tensor, ours: Tensor) -> dict[str, Tensor]:
    """Return what was added to a layer's weight, as factors A and B of which one is the identity."""
    if stored.shape != ours.shape:
        raise ModelError(
            f"{path}: {name}, which was trained whole, has the sizes {tuple(stored.shape)}; the model's are "
            f"{tuple(ours.shape)}"
        )
    change = stored.float() - ours.detach().float().cpu()
    outputs, inputs = change.shape
    return {"A": torch.eye(inputs), "B": change} if inputs <= outputs else {"A": change, "B": torch.eye(outputs)}


def _check_base(path: Path, name: str, stored: Tensor, ours: Tensor) -> None:
    """PEFT saves the unembedding too where an adapter is on it: it must be the model's."""
    if stored.shape != ours.shape or not torch.equal(stored.to(ours.device, ours.dtype), ours):
        raise ModelError(
            f"{path}: the adapter comes with a weight of {name} that is not the model's: it was trained on another "
            "base model, or on one with added tokens"
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping | None):
        raise TypeError(f"it is {value!r}, not a mapping of names and numbers")
    return value or {}


def _by_pattern(patterns: Mapping[str, Any] | None, name: str, otherwise: Any) -> Any:
    """Return the value of the first pattern that fits a layer's name, as PEFT matches them."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return otherwise
