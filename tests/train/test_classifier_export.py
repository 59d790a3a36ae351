"""An exported classifier is used as its model card shows: by its own library, without anything of ours."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

pytest.importorskip("PIL")

from PIL import Image

from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from data.pretrained.input_spec import Preprocessing
from data.pretrained.torchvision_import import import_timm, import_torchvision
from train.images.classifier_export import export_classifier
from train.images.tuned_network import tuned_network

NAMES = ("ape", "bee", "cat", "dog")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hubs, offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(hub, repository, files):
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / REVISION).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    for name, content in files.items():
        (folder / "snapshots" / REVISION / name).write_bytes(content)


def plain(network):
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def put_timm(hub):
    timm = import_timm()
    put(hub, "timm/test_resnet.r160_in1k", {"model.safetensors": save(plain(timm.create_model("test_resnet")))})
    return "timm/test_resnet.r160_in1k"


def put_torchvision(hub):
    models = import_torchvision("torchvision.models")
    (hub / "checkpoints").mkdir(parents=True)
    file = models.get_model_weights("shufflenet_v2_x0_5").DEFAULT.url.rpartition("/")[2]
    torch.save(models.get_model("shufflenet_v2_x0_5").state_dict(), hub / "checkpoints" / file)
    return "torchvision/shufflenet_v2_x0_5"


def put_transformers(hub):
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        num_labels=5, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=32,
        patch_size=8,
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config)
    network.config.architectures = ["ViTForImageClassification"]
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    put(hub, "org/small", {
        "config.json": network.config.to_json_string().encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "model.safetensors": save(plain(network), {"format": "pt"}),
    })  # fmt: skip
    return "hf/org/small"


@pytest.mark.parametrize("source", [put_timm, put_torchvision, put_transformers])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_the_card_shows_how_an_export_is_used(hub, tmp_path, monkeypatch, source, tune):
    torch.manual_seed(0)
    config = ImageClassifierTrainerConfig(model=source(hub), tune=tune, lora_rank=2)
    tuned = tuned_network(config, len(NAMES), 100, torch.device("cpu"))
    with torch.no_grad():
        for parameter in tuned.classifier.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path / "model"
    export_classifier(folder, tuned, NAMES, config, {"run": "20260101-000000"})
    pixels = np.random.default_rng(3).integers(0, 256, (200, 230, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    ready = Preprocessing(tuned.input)(Image.open(folder / "photo.png"))[None]
    with torch.no_grad():
        logits = tuned.classifier.eval().network(ready)

    card = (folder / "README.md").read_text()
    program = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("photo.jpg", "photo.png")
    monkeypatch.chdir(folder)
    space: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(program, space)
    torch.testing.assert_close(space["logits"], logits, atol=2e-3, rtol=2e-3)
    assert told.getvalue().strip() == NAMES[int(logits.argmax())]
    assert not any("parametrizations" in name for name in load_file(folder / "model.safetensors"))
    assert "| run | 20260101-000000 |" in card and "ape, bee, cat, dog" in card
