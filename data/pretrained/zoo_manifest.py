"""Zoo manifests: YAML files that name pretrained models, of hubs or of one's own.

    models:
      - timm/resnet18.a1_in1k                # the hubs' own names: timm/NAME, hf/ORG/NAME, torchvision/NAME
      - model: hf/facebook/convnext-tiny-224 # the same with facts, each of which may be left out
        name: convnext-tiny                  # by which it is called; without it the model's
        licence: apache-2.0
        parameters: 28589128
        gflops: 4.46                         # billions of multiply-adds for one image
        source_accuracy: 0.82
      - name: my-resnet                      # a network of one's own: a class, or a function that returns a network
        module: my_package.networks:ResNet
        arguments: {width: 32}               # of the class; may be left out
        weights: my-resnet.safetensors       # relative to the manifest; or .pth, .pt, .bin that hold only tensors
        input: {size: [32, 32], channels: 3, mean: [0.5, 0.5, 0.5], std: 0.25}   # of pixels from 0 to 1
        classes: 10                          # outputs that mean something; may be left out

The module that a manifest names is imported, and so is code that runs: from the manifest's folder, the current folder,
or what is installed. Weights can hold no code.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from constants.nearest import nearest
from data.data_error import DataError
from data.pretrained.input_spec import FITS, IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, InputSpec

Source = Literal["timm", "hf", "torchvision", "module"]
HUBS = ("timm", "hf", "torchvision")
_REFERENCES = "timm/NAME, hf/ORG/NAME, torchvision/NAME, or package.module:Class"
_OWN = ("name", "module", "weights", "input")  # what an entry of one's own network must have
_FACTS = ("licence", "parameters", "gflops", "classes", "source_accuracy", "arguments")
_KEYS = {"module": (*_OWN, *_FACTS), "model": ("model", "name", "input", "weights", *_FACTS)}
_INPUT_KEYS = ("size", "channels", "mean", "std", "interpolation", "crop", "fit", "resize", "order")
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class ZooEntry:
    """A pretrained model by name, with what is known of it before it is loaded.

    Attributes:
        name: name by which the model is called, unique in its manifest.
        source: `timm`, `hf`, `torchvision`, or `module` for a network of the user's own.
        identifier: name in the source: `resnet18.a1_in1k`, `facebook/convnext-tiny-224`, `my.nets:ResNet`.
        weights: file of the weights, absolute; None where the hub knows.
        arguments: keyword arguments of the class, or of the hub's constructor.
        input: how the model is fed; None where the hub knows.
        licence: licence of the weights as SPDX writes it, in lower case; None where nobody says.
        parameters: how many numbers the model has learnt; None where nobody says.
        gflops: billions of multiply-adds for one image of the model's own size; None where nobody says.
        classes: outputs that mean something, the first ones; None for all.
        source_accuracy: top-1 accuracy on the model's source data (ImageNet mostly), from 0 to 1; None if unknown.
        changed: what a manifest's `input` says of a hub's model, which changes what the hub says.
        folder: folder of the manifest, where modules are looked for first; None without a manifest.
        where: place of the entry for messages, such as `zoo.yaml, model 3 (my-resnet)`.
    """

    name: str
    source: Source
    identifier: str
    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input: InputSpec | None = None
    licence: str | None = None
    parameters: int | None = None
    gflops: float | None = None
    classes: int | None = None
    source_accuracy: float | None = None
    changed: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    where: str = ""

    @property
    def reference(self) -> str:
        """The model as commands and manifests name it: `timm/resnet18.a1_in1k`, `my.nets:ResNet`."""
        return self.identifier if self.source == "module" else f"{self.source}/{self.identifier}"


def zoo_entry(reference: str) -> ZooEntry:
    """Read one model's name.

    Args:
        reference: `timm/resnet18.a1_in1k`, `hf/facebook/convnext-tiny-224`, `torchvision/resnet18`, or `module:Class`.

    Raises:
        DataError: it has none of these forms.
    """
    problems: list[str] = []
    parts = _read_reference(reference, f"model {reference!r}", problems)
    if parts is None:
        raise DataError(problems[0])
    return ZooEntry(reference, *parts, where=f"model {reference}")


def read_zoo_manifest(path: Path) -> list[ZooEntry]:
    """Read a manifest; no model is loaded and no module imported.

    Args:
        path: the YAML file.

    Raises:
        DataError: it can't be read, or entries are wrong: one sentence for each, all at once.
    """
    try:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read the manifest {path}: {error}.") from error
    items = manifest.get("models") if isinstance(manifest, dict) else manifest if isinstance(manifest, list) else None
    if not isinstance(items, list) or not items:
        raise DataError(f"{path} is no zoo manifest: it needs a list `models` with at least one entry.")
    problems: list[str] = []
    folder = path.resolve().parent
    found = [_read_entry(item, f"{path}, model {number}", folder, problems) for number, item in enumerate(items, 1)]
    entries = [entry for entry in found if entry is not None]
    names = [entry.name for entry in entries]
    problems += [f"{path} lists {name!r} twice; names must differ." for name in dict.fromkeys(names)
                 if names.count(name) > 1]  # fmt: skip
    if problems:
        raise DataError("\n".join(problems))
    return entries


def _read_entry(item: object, where: str, folder: Path, problems: list[str]) -> ZooEntry | None:
    """Read one item of the list; None, and a sentence or more in `problems`, where it is wrong."""
    if isinstance(item, str):
        parts = _read_reference(item, where, problems)
        return None if parts is None else ZooEntry(item, *parts, folder=folder, where=f"{where} ({item})")
    if not isinstance(item, dict):
        problems.append(f"{where} must be a mapping with {', '.join(_OWN)}, or the name of a model: {_REFERENCES}.")
        return None
    kind = "model" if "model" in item else "module"
    label = item.get("name", item.get("model"))
    where = where if label is None else f"{where} ({label})"
    before = len(problems)
    required = _OWN if kind == "module" else ("model",)
    if missing := [key for key in required if key not in item]:
        instead = "" if kind == "model" or "module" in item else f" (or give `model`: {_REFERENCES})"
        problems.append(f"{where} lacks {', '.join(missing)}.{instead}")
    problems += [_unknown_key(str(key), _KEYS[kind], where) for key in item if key not in _KEYS[kind]]
    facts = _read_facts(item, where, problems)
    spec = _read_input(item["input"], where, problems, 1 if kind == "module" else 3) if "input" in item else None
    given = item.get(kind)
    parts = None if given is None else _read_reference(given, where, problems, kind)
    if parts is None or len(problems) > before:
        return None
    weights = folder / str(item["weights"]) if item.get("weights") is not None else None
    name = str(label if label is not None else given)
    changed = {key: getattr(spec, key) for key in item["input"]} if spec and kind == "model" else {}
    if kind == "model" and not {"size", "mean", "std"} <= changed.keys():
        spec = None  # the hub says the rest
    return ZooEntry(name, *parts, weights=weights, input=spec, changed=changed, folder=folder, where=where, **facts)


def _unknown_key(key: str, allowed: tuple[str, ...], where: str) -> str:
    near = nearest(key, allowed)
    meant = f" Did you mean {near}?" if near else ""
    return f"{where}: unknown key {key!r}; allowed: {', '.join(allowed)}.{meant}"


def _read_reference(given: object, where: str, problems: list[str], kind: str = "") -> tuple[Source, str] | None:
    """Return the source and the name in it."""
    text = given if isinstance(given, str) else ""
    hub, slash, name = text.partition("/")
    if kind != "module" and hub in HUBS and name:
        if hub == "hf" and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", name):
            problems.append(f"{where}: {text!r} is no name of the Hugging Face hub; needed: hf/ORG/NAME.")
            return None
        return hub, name  # type: ignore[return-value]  # of HUBS
    if kind != "model" and not slash:
        module, colon, attribute = text.partition(":")
        if colon and re.fullmatch(r"\w+(\.\w+)*", module) and re.fullmatch(r"\w+(\.\w+)*", attribute):
            return "module", text
    if kind == "module":
        problems.append(f"{where}: module is {given!r}; it must name a class: package.module:Class.")
        return None
    near = nearest(hub, HUBS) if slash else None
    meant = f" Did you mean {near}/{name}?" if near and name else ""
    problems.append(f"{where}: {given!r} names no model; needed: {_REFERENCES}.{meant}")
    return None


def _read_facts(item: dict[Any, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """Return what an entry says of its model; None counts as not said."""
    facts = {key: item[key] for key in _FACTS if item.get(key) is not None}
    classes, parameters, gflops = facts.get("classes"), facts.get("parameters"), facts.get("gflops")
    accuracy, arguments = facts.get("source_accuracy"), facts.get("arguments")
    if classes is not None and not (_is_whole(classes) and classes >= 2):
        problems.append(f"{where}: classes is {classes!r}; it must be a whole number of at least 2.")
    if parameters is not None and not (_is_whole(parameters) and parameters >= 1):
        problems.append(f"{where}: parameters is {parameters!r}; it must be a whole number of at least 1.")
    if gflops is not None and not (_is_number(gflops) and gflops > 0):
        problems.append(f"{where}: gflops is {gflops!r}; it must be a number above 0.")
    if accuracy is not None and not (_is_number(accuracy) and 0 <= accuracy <= 1):
        problems.append(f"{where}: source_accuracy is {accuracy!r}; it must be from 0 to 1.")
    if arguments is not None and not (isinstance(arguments, dict) and all(isinstance(key, str) for key in arguments)):
        problems.append(f"{where}: arguments is {arguments!r}; it must be a mapping of names to values.")
    if "licence" in facts:
        facts["licence"] = str(facts["licence"]).lower()
    return facts


def _read_input(given: object, where: str, problems: list[str], usual_channels: int) -> InputSpec | None:
    """Read how a model is fed, `mean` and `std` with a number for each channel."""
    if not isinstance(given, dict) or "size" not in given:
        form = "{size: [H, W], channels: 1 or 3, mean: .., std: ..}"
        problems.append(f"{where}: input is {given!r}; needed: {form}.")
        return None
    before = len(problems)
    problems += [_unknown_key(str(key), _INPUT_KEYS, f"{where}, input") for key in given if key not in _INPUT_KEYS]
    size, channels = given["size"], given.get("channels", usual_channels)
    size = [size, size] if _is_whole(size) else size
    if not (isinstance(size, list) and len(size) == 2 and all(_is_side(side) for side in size)):
        problems.append(f"{where}: input size is {size!r}; needed: [H, W], whole numbers from 1 to {_LARGEST_SIDE}.")
    if not _is_whole(channels) or channels not in (1, 3):
        problems.append(f"{where}: input channels is {channels!r}; it must be 1 or 3.")
        return None
    mean = _read_row(given, "mean", 0.0, channels, where, problems)
    std = _read_row(given, "std", 1.0, channels, where, problems)
    words = {key: given[key] for key in ("interpolation", "fit", "order") if key in given}
    for key, allowed in (("interpolation", INTERPOLATIONS), ("fit", FITS), ("order", ("rgb", "bgr"))):
        if key in words and words[key] not in allowed:
            problems.append(f"{where}: input {key} is {words[key]!r}; it must be one of {', '.join(allowed)}.")
    crop, resize = given.get("crop", 1.0), given.get("resize")
    if not (_is_number(crop) and 0 < crop <= 1):
        problems.append(f"{where}: input crop is {crop!r}; it must be above 0 and at most 1, the share that is kept.")
    if resize is not None and not _is_side(resize):
        problems.append(f"{where}: input resize is {resize!r}; needed: a whole number from 1 to {_LARGEST_SIDE}.")
    if len(problems) > before:
        return None
    return InputSpec((size[0], size[1]), channels, mean, std, crop=float(crop), resize=resize, **words)


def _read_row(
    given: dict[Any, Any], key: str, default: float, channels: int, where: str, problems: list[str]
) -> tuple[float, ...]:
    value = given.get(key, default)
    if value == "imagenet":
        value = list(IMAGENET_MEAN if key == "mean" else IMAGENET_STD)
    row = value if isinstance(value, list) else [value] * channels
    if len(row) != channels or not all(map(_is_number, row)) or (key == "std" and min(row) <= 0):
        above = " above 0" if key == "std" else ""
        problems.append(
            f"{where}: input {key} is {value!r}; needed: a number{above}, or a list with one for each channel."
        )
        return ()
    return tuple(float(number) for number in row)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_SIDE


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
