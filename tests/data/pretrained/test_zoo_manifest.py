"""Manifests of pretrained models: what is read, and what is told of all that is wrong at once."""

import re

import pytest

from constants.paths import ZOO_DIR
from data.data_error import DataError
from data.pretrained.input_spec import InputSpec
from data.pretrained.zoo_manifest import read_zoo_manifest, zoo_entry


def write(tmp_path, text):
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    return path


def test_each_form_of_an_entry(tmp_path):
    entries = read_zoo_manifest(write(tmp_path, """
models:
  - timm/resnet18.a1_in1k
  - {model: hf/facebook/convnext-tiny-224, name: convnext, licence: Apache-2.0, parameters: 28589128, gflops: 4.46,
     source_accuracy: 0.82, input: {size: 288}}
  - torchvision/resnet50.IMAGENET1K_V1
  - name: mine
    module: my.nets:Net.small
    weights: deep/mine.pth
    input: {size: [32, 24], channels: 3, mean: imagenet, std: 0.5, interpolation: bicubic, crop: 0.9, fit: pad}
"""))  # fmt: skip
    first, second, third, fourth = entries
    assert (first.name, first.source, first.identifier) == ("timm/resnet18.a1_in1k", "timm", "resnet18.a1_in1k")
    assert first.weights is None and first.input is None and first.reference == "timm/resnet18.a1_in1k"
    assert (second.name, second.source, second.identifier) == ("convnext", "hf", "facebook/convnext-tiny-224")
    assert (second.licence, second.parameters, second.gflops) == ("apache-2.0", 28589128, 4.46)
    assert second.input is None and second.changed == {"size": (288, 288)}
    assert (third.source, third.identifier) == ("torchvision", "resnet50.IMAGENET1K_V1")
    assert (fourth.source, fourth.identifier) == ("module", "my.nets:Net.small")
    assert fourth.weights == tmp_path / "deep" / "mine.pth" and fourth.folder == tmp_path
    assert fourth.input == InputSpec((32, 24), 3, std=(0.5,) * 3, interpolation="bicubic", crop=0.9, fit="pad")


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    path = write(
        tmp_path,
        """
models:
  - tim/resnet18
  - {model: timm/resnet18, licens: mit}
  - {name: mine, module: a:B, weights: w.pth, input: {size: 0, channels: 3, crop: 2, interpolation: cubic, fit: crop}}
  - {name: other, modul: a:B, weights: w.pth, input: {size: 8}}
  - {model: timm/resnet34, parameters: -1, gflops: many, source_accuracy: 76, classes: 1.5, arguments: [1]}
  - 7
""",
    )
    with pytest.raises(DataError) as told:
        read_zoo_manifest(path)
    lines = str(told.value).splitlines()
    expected = [
        "model 1: 'tim/resnet18' names no model; needed: timm/NAME, hf/ORG/NAME, torchvision/NAME, or package.module:",
        "Did you mean timm/resnet18?",
        "model 2 (timm/resnet18): unknown key 'licens'; allowed: model, name, input, weights, licence",
        "Did you mean licence?",
        "model 3 (mine): input size is [0, 0]; needed: [H, W], whole numbers from 1 to 4096.",
        "input interpolation is 'cubic'; it must be one of nearest, box, bilinear, hamming, bicubic, lanczos.",
        "input fit is 'crop'; it must be one of shorter, stretch, pad.",
        "input crop is 2; it must be above 0 and at most 1",
        "model 4 (other) lacks module. (or give `model`: timm/NAME",
        "unknown key 'modul'; allowed: name, module",
        "Did you mean module?",
        "model 5 (timm/resnet34): classes is 1.5",
        "parameters is -1", "gflops is 'many'", "source_accuracy is 76", "arguments is [1]",
        "model 6 must be a mapping with name, module, weights, input, or the name of a model",
    ]  # fmt: skip
    for text in expected:
        assert any(text in line for line in lines), text
    assert len(lines) == 14 and all(line.startswith(str(path)) for line in lines)


def test_names_that_are_there_twice(tmp_path):
    with pytest.raises(DataError, match="lists 'timm/a' twice; names must differ."):
        read_zoo_manifest(write(tmp_path, "[timm/a, timm/b, timm/a]"))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("resnet18", "needed: timm/NAME, hf/ORG/NAME, torchvision/NAME, or package.module:Class."),
        ("trochvision/resnet18", "Did you mean torchvision/resnet18?"),
        ("hf/a b", "'hf/a b' is no name of the Hugging Face hub; needed: hf/ORG/NAME."),
    ],
)
def test_references_that_name_nothing(given, text):
    with pytest.raises(DataError, match=re.escape(text)):
        zoo_entry(given)


def test_the_manifest_that_ships():
    """About sixty models of three hubs, with facts that are known of some models by anybody."""
    entries = {entry.name: entry for entry in read_zoo_manifest(ZOO_DIR / "hub.yaml")}
    assert 55 <= len(entries) <= 70
    assert {entry.source for entry in entries.values()} == {"timm", "hf", "torchvision"}
    assert all(entry.parameters and entry.gflops for entry in entries.values())
    resnet = entries["timm/resnet50.a1_in1k"]
    assert (resnet.parameters, resnet.gflops, resnet.licence) == (25557032, 4.089, "apache-2.0")
    assert entries["torchvision/resnet50.IMAGENET1K_V2"].source_accuracy == 0.80858
    assert entries["timm/convnextv2_tiny.fcmae_ft_in22k_in1k"].licence == "cc-by-nc-4.0"
    vit = entries["hf/google/vit-base-patch16-224"]
    assert (vit.parameters, vit.licence) == (86567656, None) and vit.gflops == pytest.approx(17.56, abs=0.02)
