"""The zoo: trained networks with what is known of them. `load_zoo()` reads a folder with zoo.yaml and its weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from constants import ZOO_DIR, command
from data.data_error import DataError
from model.zoo_families import FAMILIES, build_family, family_shapes
from storage.files import file_digest

SCHEMA_VERSION = 1
MANIFEST_NAME = "zoo.yaml"
WEIGHTS_NAME = "weights.safetensors"
_REMEDY = (
    f"Restore it with `git checkout data/zoo`, or train it anew with `{command('train')} ModelZooTrainer publish=on`."
)


@dataclass(frozen=True)
class ZooEntry:
    """One network of the zoo.

    Attributes:
        name: name of the network, unique in the zoo.
        family: architecture of the network, a key of `model.zoo_families.FAMILIES`.
        domain: name of the image domain that the network was trained on.
        view: one of `VIEWS`, the form in which images were shown to the network in training.
        classes: names of the classes that outputs 0, 1, ... stand for; the outputs after these are unused.
        class_indices: classes that outputs 0, 1, ... stand for, as indices into the domain's class names.
        epochs: length of the network's training.
        label_noise: fraction of the training labels that were wrong.
        seed: seed of the network's data order and label noise.
        init_seed: seed of the initial weights; networks of one family and init seed began alike.
        undertrained: whether training was stopped far too early, on purpose.
        checkpoint_epochs: number of epochs after which each checkpoint was taken; the last is the finished network.
        source_accuracy: accuracy of each checkpoint's fp16 weights on held-out source images, from 0 to 1.
        parameters: length of the network's flat parameter vector.
        vectors: (checkpoints, parameters) fp16, the flat parameters at each checkpoint.
    """

    name: str
    family: str
    domain: str
    view: str
    classes: tuple[str, ...]
    class_indices: tuple[int, ...]
    epochs: int
    label_noise: float
    seed: int
    init_seed: int
    undertrained: bool
    checkpoint_epochs: tuple[int, ...]
    source_accuracy: tuple[float, ...]
    parameters: int
    vectors: torch.Tensor = field(repr=False, compare=False)

    def vector(self, checkpoint: int = -1) -> torch.Tensor:
        """Return the parameters of a checkpoint as one float32 vector (parameters,), in the order of `parameters()`."""
        return self.vectors[checkpoint].float()

    def load_model(self, checkpoint: int = -1) -> nn.Module:
        """Build the network, in evaluation mode.

        Args:
            checkpoint: index of the training checkpoint; the last is the finished network.

        Returns:
            The network. It maps images (B, 1, 12, 12), pixel / 127.5 - 1, to logits (B, 10); those after `len(classes)`
                mean nothing.
        """
        network = build_family(self.family)
        nn.utils.vector_to_parameters(self.vector(checkpoint), network.parameters())
        return network.eval()


@dataclass(frozen=True)
class ModelZoo:
    """All networks of a zoo.

    Attributes:
        path: folder of the zoo.
        entries: networks of the zoo, in the order of the manifest.
        domains: source and licence of each domain's images, by the domain's name.
        digest: SHA-256 of the weights file, by which measurements say which networks they are of.
    """

    path: Path
    entries: tuple[ZooEntry, ...]
    domains: dict[str, str]
    digest: str = ""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ZooEntry]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> ZooEntry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise DataError(
            f"the zoo in {self.path} has no network {name!r}; its names are in {self.path / MANIFEST_NAME}."
        )


def load_zoo(path: Path = ZOO_DIR) -> ModelZoo:
    """Read a zoo's manifest and weights, and check one against the other.

    Args:
        path: folder that holds zoo.yaml and the weights file that it names.

    Returns:
        The zoo.

    Raises:
        DataError: a file is missing or damaged, or manifest and weights don't fit each other.
    """
    manifest = _read_manifest(path / MANIFEST_NAME)
    weights = _read_weights(path, manifest["weights"])
    entries = []
    for number, item in enumerate(manifest["networks"]):
        entries.append(_read_entry(item, f"{path / MANIFEST_NAME}, network {number + 1}", weights))
    if unlisted := sorted(set(weights) - {entry.name for entry in entries}):
        raise DataError(
            f"{path}: the weights hold networks that {MANIFEST_NAME} does not list: {unlisted[:3]}. {_REMEDY}"
        )
    if len({entry.name for entry in entries}) < len(entries):
        raise DataError(f"{path / MANIFEST_NAME} lists a network twice; names must differ. {_REMEDY}")
    return ModelZoo(path, tuple(entries), dict(manifest["domains"]), str(manifest["weights"].get("sha256", "")))


def save_zoo(path: Path, entries: Sequence[ZooEntry], domains: dict[str, str]) -> None:
    """Write a zoo: weights first, then the manifest that holds their digest.

    Args:
        path: folder to write the zoo into; it is made.
        entries: networks of the zoo.
        domains: source and licence of each domain's images, by the domain's name.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = path / WEIGHTS_NAME
    weights.write_bytes(save({entry.name: entry.vectors.to(torch.float16).contiguous() for entry in entries}))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "input": "images 1x12x12, grey, pixel / 127.5 - 1",
        "outputs": 10,
        "accuracy": "share of right answers on held-out source images, of the fp16 weights, one for each checkpoint",
        "weights": {
            "file": WEIGHTS_NAME,
            "layout": "<network>: (checkpoints, parameters) fp16, parameters in the order of the family",
            "sha256": file_digest(weights),
        },
        "domains": domains,
        "families": {
            family: {name: list(shape) for name, shape in family_shapes(family).items()}
            for family in dict.fromkeys(entry.family for entry in entries)
        },
        "networks": [_plain(entry) for entry in entries],
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    (path / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _plain(entry: ZooEntry) -> dict[str, Any]:
    row = {part.name: getattr(entry, part.name) for part in fields(entry) if part.name != "vectors"}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}


def _read_manifest(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster, where it is built in
    try:
        manifest = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read the zoo's manifest {path}: {error}. {_REMEDY}") from error
    kinds = {"schema_version": int, "weights": dict, "domains": dict, "networks": list}
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{path} is no zoo manifest; it needs {', '.join(kinds)}. {_REMEDY}")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {manifest['schema_version']}, this program reads {SCHEMA_VERSION}. {_REMEDY}"
        )
    return manifest


def _read_weights(path: Path, about: dict[str, Any]) -> dict[str, torch.Tensor]:
    file = path / str(about.get("file"))
    try:
        weights = load_file(file)
        digest = file_digest(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read the zoo's weights {file}: {error}. {_REMEDY}") from error
    if "sha256" in about and digest != about["sha256"]:
        raise DataError(
            f"{file} has the digest {digest[:12]}..., its manifest asks for {str(about['sha256'])[:12]}...: they don't "
            f"belong together. {_REMEDY}"
        )
    return weights


def _read_entry(item: Any, where: str, weights: dict[str, torch.Tensor]) -> ZooEntry:
    keys = [part.name for part in fields(ZooEntry) if part.name != "vectors"]
    if not isinstance(item, dict) or (missing := [key for key in keys if key not in item]):
        raise DataError(f"{where} lacks {', '.join(missing) if isinstance(item, dict) else 'its keys'}. {_REMEDY}")
    where = f"{where} ({item['name']})"
    if item["family"] not in FAMILIES:
        raise DataError(f"{where}: there is no family {item['family']!r}; allowed: {', '.join(FAMILIES)}.")
    if item["name"] not in weights:
        raise DataError(f"{where}: the weights file has no tensor of that name. {_REMEDY}")
    vectors = weights[item["name"]]
    expected = (len(item["checkpoint_epochs"]), sum(shape.numel() for shape in family_shapes(item["family"]).values()))
    if tuple(vectors.shape) != expected or item["parameters"] != expected[1]:
        raise DataError(
            f"{where}: weights {tuple(vectors.shape)}, listed with {item['parameters']} parameters; family "
            f"{item['family']} with these checkpoints needs {expected}. {_REMEDY}"
        )
    if len(item["source_accuracy"]) != expected[0]:
        raise DataError(f"{where}: {len(item['source_accuracy'])} accuracies for {expected[0]} checkpoints. {_REMEDY}")
    if not np.isfinite(vectors.numpy()).all():
        raise DataError(f"{where}: its weights hold values that are not finite. {_REMEDY}")
    values = {key: tuple(item[key]) if isinstance(item[key], list) else item[key] for key in keys}
    return ZooEntry(vectors=vectors, **values)
