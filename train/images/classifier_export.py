"""A fine-tuned classifier as a folder that others can use: weights, classes, how images are fed, a model card."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from constants import command
from model.weight_lora import merged_weights
from storage.files import output_errors, write_atomically, write_json
from storage.weights_file import encode_weights
from train.images.classifier_files import CARD, CLASSIFIER, WEIGHTS
from train.images.tuned_network import TunedNetwork

_SETTINGS = ("tune", "epochs", "batch_size", "learning_rate", "augmentation", "seed")

_BEGIN = """import json

import torch
{imports}
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

facts = json.load(open("image_classifier.json"))
"""
_LOAD = """model.load_state_dict(load_file("model.safetensors"))
prepare = transforms.Compose([
    transforms.Resize({resize}, transforms.InterpolationMode("{interpolation}")),
    transforms.CenterCrop({size}),
    transforms.ToTensor(),
    transforms.Normalize({mean}, {std}),
])
with torch.no_grad():
    logits = model.eval()(prepare(Image.open("photo.jpg").convert("RGB"))[None]){logits}
print(facts["classes"][logits.argmax(1)])"""
_MAKE = {
    "timm": ("import timm", 'model = timm.create_model("{name}", num_classes=len(facts["classes"]))\n'),
    "torchvision": (
        "import torchvision",
        'model = torchvision.models.get_model("{plain}", num_classes=len(facts["classes"]))\n',
    ),
    "hf": (
        "from transformers import AutoConfig, AutoModelForImageClassification",
        'config = AutoConfig.from_pretrained("{name}", id2label=dict(enumerate(facts["classes"])))\n'
        "model = AutoModelForImageClassification.from_config(config)\n",
    ),
}  # by source: what is imported, and how the network is made
_HF_PREFIX = "model."  # of names in what wraps a network of transformers


def export_classifier(
    folder: Path,
    tuned: TunedNetwork,
    class_names: tuple[str, ...],
    config: ImageClassifierTrainerConfig,
    facts: Mapping[str, str],
) -> None:
    """Write a trained classifier: model.safetensors by the names that its library gives, without anything of ours.

    Low-rank changes are merged into the weights.

    Args:
        folder: folder that receives the files.
        tuned: network with the weights to write.
        class_names: names of the classes, in the order of the logits.
        config: settings of the run.
        facts: what the model card tells of the training, by name.

    Raises:
        OutputError: a file can't be written.
    """
    entry, spec = tuned.entry, tuned.input
    merged = merged_weights(tuned.classifier.network)
    if entry.source == "hf":
        merged = {name.removeprefix(_HF_PREFIX): value for name, value in merged.items()}
    weights = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in merged.items()}
    content = {
        "schema_version": 1,
        "model": entry.reference,
        "source": entry.source,
        "arguments": dict(entry.arguments),
        "classes": list(class_names),
        "input": asdict(spec),
        "pretrained_digest": tuned.digest,
        "licence": tuned.licence,
    }
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, encode_weights(weights))
    write_json(folder / CLASSIFIER, content)
    settings = {name: str(getattr(config, name)) for name in _SETTINGS}
    write_atomically(folder / CARD, _card(tuned, class_names, settings | dict(facts)).encode())


def _card(tuned: TunedNetwork, class_names: tuple[str, ...], facts: Mapping[str, str]) -> str:
    entry, spec = tuned.entry, tuned.input
    head = ["---", "pipeline_tag: image-classification"]
    head += [f"library_name: {entry.source}"] if entry.source in ("timm", "transformers") else []
    head += [f"license: {tuned.licence}"] if tuned.licence else []
    head += (
        [f"base_model: {entry.identifier if '/' in entry.identifier else f'timm/{entry.identifier}'}"]
        if (entry.source in ("timm", "hf"))
        else []
    )
    shown = ", ".join(class_names[:20]) + (f" and {len(class_names) - 20:,} more" if len(class_names) > 20 else "")
    height, width = spec.size
    what = [f"{entry.reference}, fine-tuned to tell apart {len(class_names):,} classes: {shown}.", ""]
    files = [
        "| file | holds |", "|---|---|",
        f"| {WEIGHTS} | the weights, by the names that the network's library gives them |",
        f"| {CLASSIFIER} | the network, the classes in the order of its outputs, how images are fed |", "",
    ]  # fmt: skip
    use = [
        f"Images of {width} x {height}: resized to {spec.resized[1]} x {spec.resized[0]} ({spec.fit}, "
        f"{spec.interpolation}), the middle cut out, scaled to 0 to 1, minus {list(spec.mean)}, divided by "
        f"{list(spec.std)}.", "",
        f"`{command('train')} ImageClassifier --predict RUN --out predictions.csv predict_data=FOLDER` of Menagerie "
        "does that with the run.", "",
    ]  # fmt: skip
    code = _code(tuned)
    use += ["```python", code, "```", ""] if code else []
    rows = ["| | |", "|---|---|", f"| pretrained weights | {tuned.location} |", f"| their digest | {tuned.digest} |"]
    rows += [f"| licence | {tuned.licence} |"] if tuned.licence else []
    rows += [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    return "\n".join([*head, "---", "", f"# {entry.name}, fine-tuned", "", *what, *files, "## Use", "", *use,
                      "## Training", "", *rows, ""])  # fmt: skip


def _code(tuned: TunedNetwork) -> str | None:
    """Return a program that uses the export without anything of ours; None where there is no short one."""
    entry, spec = tuned.entry, tuned.input
    network = getattr(tuned.classifier.network, "model", None)
    unknown = entry.source == "hf" and not type(network).__name__.endswith("ForImageClassification")
    usual = spec.order == "rgb" and spec.channels == 3 and spec.fit in ("shorter", "stretch") and not entry.arguments
    if entry.source not in _MAKE or unknown or not usual:
        return None
    imports, make = _MAKE[entry.source]
    square = spec.fit == "shorter" and spec.resized[0] == spec.resized[1]
    load = _LOAD.format(
        resize=spec.resized[0] if square else list(spec.resized), size=list(spec.size), mean=list(spec.mean),
        std=list(spec.std), interpolation=spec.interpolation, logits=".logits" if entry.source == "hf" else "",
    )  # fmt: skip
    made = make.format(name=entry.identifier, plain=entry.identifier.partition(".")[0])
    return _BEGIN.format(imports=imports) + made + load
