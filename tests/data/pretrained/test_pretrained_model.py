"""Pretrained models of each source: features, logits, new heads and groups; what is told of those that can't be had."""

import json
import re
import socket

import pytest
import torch
from pretrained_samples import LITE0, put_on_hub
from safetensors.torch import save

from data.pretrained import hub_errors
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.pretrained_model import open_pretrained
from data.pretrained.torchvision_import import import_timm, import_torchvision
from data.pretrained.zoo_manifest import read_zoo_manifest, zoo_entry

TIMM = ("test_vit", "test_vit2", "test_convnext", "test_convnext2", "test_efficientnet", "test_nfnet", "test_resnet",
        "test_byobnet")  # fmt: skip


def put_timm(hub, name, **changes):
    """Draw a model of timm and put its weights where the hub's cache has them; returns the model."""
    torch.manual_seed(1)
    timm = import_timm()
    network = timm.create_model(name).eval()
    for value in network.state_dict().values():  # running means, scales: nothing may be 0 or 1 by chance
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * 0.02)
    state = {name: value.contiguous() for name, value in network.state_dict().items()} | changes
    config = timm.models.get_pretrained_cfg(f"{name}.r160_in1k")
    put_on_hub(hub, config.hf_hub_id, {"model.safetensors": save(state)})
    return network


def check_parts(model, classes=7):
    """Check what holds for each model: groups have each parameter once, a new head begins at zero, bodies are equal."""
    network = model.with_new_head(classes)
    pixels = torch.randn(2, model.input.channels, *model.input.size, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert torch.equal(network.eval()(pixels), torch.zeros(2, classes))
    names = [name for group in model.layer_groups() for name in group]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    head = model.layer_groups()[-1]
    assert {parameter.shape[0] for name, parameter in network.named_parameters() if name in head} == {classes}
    assert len(model.layer_groups()) >= 3
    return network


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm_are_those_of_the_hub(hub, name):
    theirs = put_timm(hub, name)
    model = open_pretrained(zoo_entry(f"timm/{name}.r160_in1k"))
    pixels = torch.randn(3, 3, *model.input.size)
    with torch.inference_mode():
        features = model.features(pixels)
        torch.testing.assert_close(
            features, theirs.forward_head(theirs.forward_features(pixels), pre_logits=True).flatten(1)
        )
        torch.testing.assert_close(model.source_logits(features), theirs(pixels))
        torch.testing.assert_close(model(pixels), theirs(pixels))
    assert model.classes == 1000 and model.feature_size == features.shape[1] and model.licence == "apache-2.0"
    assert model.location.startswith(str(hub)) and model.location.endswith("model.safetensors")
    network = check_parts(model)
    assert network.state_dict().keys() == theirs.state_dict().keys()
    again = open_pretrained(zoo_entry(f"timm/{name}"))
    assert again.weights_digest != model.weights_digest, "another name"
    assert open_pretrained(zoo_entry(f"timm/{name}.r160_in1k")).weights_digest == model.weights_digest


def test_names_that_timm_does_not_have(hub):
    for given, text in (
        ("timm/resnet18.a9_in1k", "has no pretrained model resnet18.a9_in1k. Did you mean timm/resnet18.a"),
        ("timm/resnet_18", "Did you mean timm/resnet18"),
        ("timm/zzzzz", "`timm.list_pretrained()` lists the "),
    ):
        with pytest.raises(ModelUnavailableError, match=re.escape(text)):
            open_pretrained(zoo_entry(given))


def test_without_a_network_it_says_where_to_put_the_weights(hub):
    with pytest.raises(ModelUnavailableError) as told:
        open_pretrained(zoo_entry("timm/test_vit.r160_in1k"))
    folder = hub / "hub" / "models--timm--test_vit.r160_in1k"
    assert "HF_HUB_OFFLINE is set" in str(told.value) and "`hf download timm/test_vit.r160_in1k`" in str(told.value)
    assert str(folder) in str(told.value)


def test_a_hub_that_does_not_answer_is_asked_once(hub, monkeypatch):
    """Else each of sixty models tries for half a minute."""
    from huggingface_hub import constants

    monkeypatch.setattr(hub_errors, "_unreachable", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def fail(*words, **options):
        asked.append(words)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(
        ModelUnavailableError, match=r"the hub can't be reached \(.*\). To have them, on a machine with"
    ):
        open_pretrained(zoo_entry("timm/resnet18.a1_in1k"))
    tries = len(asked)
    assert tries > 0
    for name in ("timm/resnet34.a1_in1k", "hf/facebook/convnext-tiny-224"):
        with pytest.raises(ModelUnavailableError, match=r"the hub can't be reached \(as was found before\)"):
            open_pretrained(zoo_entry(name))
    assert len(asked) == tries


def test_weights_of_another_shape_are_refused(hub):
    put_timm(hub, "test_vit", **{"norm.weight": torch.ones(3)})
    with pytest.raises(ModelUnavailableError, match=r"weights .*model.safetensors don't fit .*norm.weight"):
        open_pretrained(zoo_entry("timm/test_vit.r160_in1k"))


def test_a_damaged_file_is_named(hub):
    put_on_hub(hub, "timm/test_vit.r160_in1k", {"model.safetensors": b"half of it"})
    with pytest.raises(ModelUnavailableError, match=r"timm/test_vit.r160_in1k can't be loaded: SafetensorError"):
        open_pretrained(zoo_entry("timm/test_vit.r160_in1k"))


def test_files_of_older_timm_are_found(hub):
    """Such as mobilevit_s of 2021, by the address in timm's own settings."""
    timm = import_timm()
    config = timm.models.get_pretrained_cfg("resnet10t.c3_in1k")
    network = timm.create_model("resnet10t")
    (hub / "hub" / "checkpoints").mkdir(parents=True)
    file = hub / "hub" / "checkpoints" / config.url.rpartition("/")[2]
    torch.save(network.state_dict(), file)
    model = open_pretrained(zoo_entry("timm/resnet10t.c3_in1k"))
    assert model.location == str(file) and torch.equal(model.body.conv1[0].weight, network.conv1[0].weight)


def test_a_body_without_a_classifier(hub):
    """Models of self-supervised training have features and no logits, and take a new head."""
    timm = import_timm()
    (hub / "small.pth").parent.mkdir(exist_ok=True)
    network = timm.create_model("test_vit", num_classes=0).eval()
    torch.save(network.state_dict(), hub / "small.pth")
    (hub / "zoo.yaml").write_text("models: [{model: timm/test_vit, weights: small.pth, arguments: {num_classes: 0}}]")
    model = open_pretrained(read_zoo_manifest(hub / "zoo.yaml")[0])
    pixels = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(pixels), network(pixels))
        assert model.source_logits(model.features(pixels)) is None and model.classes == 0
    check_parts(model)


# --------------------------------------------------------------------------------------------------- transformers

SMALL = {
    "ViT": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48,
            "image_size": 32, "patch_size": 8},
    "ConvNext": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]},
    "Swin": {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 2], "image_size": 32, "window_size": 4},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2]},
    "Dinov2": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 28},
}  # fmt: skip


def put_transformers(hub, kind, processor, classifier=True):
    """Draw a small model of transformers, put it into the hub's cache as org/small; returns it."""
    import_torchvision()
    import transformers

    torch.manual_seed(2)
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **SMALL[kind])
    maker = getattr(transformers, f"{kind}ForImageClassification" if classifier else f"{kind}Model")
    network = maker(config).eval()
    network.config.architectures = [maker.__name__]
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    put_on_hub(hub, "org/small", {
        "config.json": network.config.to_json_string().encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "model.safetensors": save(state, {"format": "pt"}),
    })  # fmt: skip
    return network


@pytest.mark.parametrize("kind", SMALL)
def test_classifiers_of_transformers(hub, kind):
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    theirs = put_transformers(hub, kind, processor)
    model = open_pretrained(zoo_entry("hf/org/small"))
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), theirs(pixel_values=pixels).logits)
        torch.testing.assert_close(model.source_logits(model.features(pixels)), theirs(pixel_values=pixels).logits)
    assert model.classes == 5 and model.input.size == (32, 32) and model.input.mean == (0.5, 0.5, 0.5)
    assert model.location.startswith(str(hub / "hub" / "models--org--small"))
    network = check_parts(model)
    assert {f"model.{name}" for name in theirs.state_dict()} == network.state_dict().keys()


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "ConvNext"])
def test_bodies_of_transformers(hub, kind):
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    theirs = put_transformers(hub, kind, processor, classifier=False)
    model = open_pretrained(zoo_entry("hf/org/small"))
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(pixels), theirs(pixel_values=pixels).pooler_output.flatten(1))
    assert model.classes == 0
    check_parts(model)


def test_what_the_hub_lacks_is_told(hub):
    with pytest.raises(ModelUnavailableError, match="`hf download org/none`") as told:
        open_pretrained(zoo_entry("hf/org/none"))
    assert "models--org--none" in str(told.value)


# ---------------------------------------------------------------------------------------------------- torchvision


def put_torchvision(hub, name):
    torch.manual_seed(4)
    models = import_torchvision("torchvision.models")
    network = models.get_model(name, weights=None).eval()
    (hub / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    file = hub / "hub" / "checkpoints" / models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    torch.save(network.state_dict(), file)
    return network, file


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_models_of_torchvision(hub, name):
    theirs, file = put_torchvision(hub, name)
    model = open_pretrained(zoo_entry(f"torchvision/{name}"))
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model.source_logits(model.features(pixels)), theirs(pixels))
    assert model.location == str(file) and model.classes == 1000 and model.licence is None
    assert check_parts(model).state_dict().keys() == theirs.state_dict().keys()


def test_what_torchvision_lacks_is_told(hub):
    for given, text in (
        ("torchvision/resnet81", "torchvision/resnet18"),
        ("torchvision/resnet18.V3", "torchvision's resnet18 has no weights V3; it has IMAGENET1K_V1, DEFAULT."),
        ("torchvision/resnet18", "download https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere, and "
                                 f"put it at {hub}/hub/checkpoints/resnet18-f37072fd.pth"),
    ):  # fmt: skip
        with pytest.raises(ModelUnavailableError, match=re.escape(text)):
            open_pretrained(zoo_entry(given))


# ------------------------------------------------------------------------------------------------------ of one's own

MODULE = """
import torch
from torch import nn

class Inside(nn.Module):
    '''Gives probabilities, in a dictionary.'''
    def __init__(self, classes=5):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3)
        self.last = nn.Linear(6, classes)
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return {"logits": self.last(torch.relu(self.convolution(images)).mean((2, 3))).log_softmax(1)}

class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3)

    def forward(self, images):
        return self.convolution(images).mean((2, 3))
"""


@pytest.fixture
def own(tmp_path):
    """Return a function that opens a network of MODULE by a manifest."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)

    def open_one(attribute, weights, size=16):
        torch.save(weights, tmp_path / "own.pth")
        (tmp_path / "zoo.yaml").write_text(
            f"models: [{{name: own, module: '{name}:{attribute}', weights: own.pth, "
            f"input: {{size: {size}, channels: 3}}}}]"
        )
        return open_pretrained(read_zoo_manifest(tmp_path / "zoo.yaml")[0])

    return open_one


WEIGHTS = {"convolution.weight": torch.randn(6, 3, 3, 3), "convolution.bias": torch.zeros(6),
           "last.weight": torch.randn(5, 6), "last.bias": torch.randn(5), "unused.weight": torch.zeros(2, 2),
           "unused.bias": torch.zeros(2)}  # fmt: skip


@pytest.mark.parametrize(
    "wrapped",
    [
        WEIGHTS,
        {"state_dict": {f"module.{name}": value for name, value in WEIGHTS.items()}, "epoch": 3},
        {"model": {f"model.{name}": value for name, value in WEIGHTS.items()}, "optimizer": {"lr": 0.1}},
        {f"module._orig_mod.{name}": value for name, value in WEIGHTS.items()},
    ],
)
def test_own_networks_that_end_in_a_softmax(own, wrapped):
    model = own("Inside", wrapped)
    pixels = torch.randn(2, 3, 16, 16)
    features = torch.relu(
        torch.nn.functional.conv2d(pixels, WEIGHTS["convolution.weight"], WEIGHTS["convolution.bias"])
    ).mean((2, 3))
    with torch.inference_mode():
        torch.testing.assert_close(model.features(pixels), features)
        torch.testing.assert_close(model(pixels), features @ WEIGHTS["last.weight"].T + WEIGHTS["last.bias"])
    new = model.with_new_head(3)
    logits = new(pixels)
    assert logits.shape == (2, 3) and logits.requires_grad
    torch.testing.assert_close(logits.exp(), torch.full((2, 3), 1 / 3))
    names = [name for group in model.layer_groups() for name in group]
    assert sorted(names) == sorted(name for name, _ in new.named_parameters())
    assert model.layer_groups()[-1] == ["network.last.weight", "network.last.bias"]


def test_own_networks_that_cannot_be_used(own):
    convolution = {name: value for name, value in WEIGHTS.items() if name.startswith("conv")}
    with pytest.raises(ModelUnavailableError, match=r"NoLinear has no last linear layer .* Let it end in nn.Linear"):
        own("NoLinear", convolution)
    with pytest.raises(ModelUnavailableError, match=r"can't be run on images \(n, 3, 2, 2\): RuntimeError"):
        own("Inside", WEIGHTS, size=2)
    with pytest.raises(ModelUnavailableError, match="own.pth don't fit: .*Missing key.*last.weight"):
        own("Inside", convolution)
    with pytest.raises(ModelUnavailableError, match="never a pickle with more than tensors"):
        own("Inside", {"last.weight": ModelUnavailableError})


def test_the_digest_follows_the_weights():
    import dataclasses

    first = open_pretrained(LITE0)
    assert len(first.weights_digest) == 64 and first.licence is None
    second = open_pretrained(dataclasses.replace(LITE0, licence="apache-2.0", where="another"))
    assert second.weights_digest == first.weights_digest and second.licence == "apache-2.0"
    with torch.no_grad():
        check = open_pretrained(LITE0)
    assert check.weights_digest == first.weights_digest
