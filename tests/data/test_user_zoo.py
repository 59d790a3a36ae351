"""Users' zoos: manifests, modules and weights, and what is refused with which words."""

import re
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from data.data_error import DataError
from data.user_zoo import load_user_zoo

MODULE = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        print("a module may print")
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(4 * width, 5)

    def forward(self, images):
        return self.head(self.body(images))

def no_network():
    return 3
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Return a function that writes a manifest of one changed model, and its path."""
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    shapes = {"body.0.weight": (4, 3, 3, 3), "body.0.bias": (4,), "head.weight": (5, 16), "head.bias": (5,)}
    save_file({key: torch.ones(shape) for key, shape in shapes.items()}, tmp_path / "tiny.safetensors")

    def write(drop=(), models=None, **changes):
        model = {
            "name": "tiny", "module": f"{name}:Tiny", "weights": "tiny.safetensors",
            "input": {"size": [10, 8], "channels": 3, "mean": [0.5, 0.5, 0.25], "std": 0.5},
        } | changes  # fmt: skip
        for key in drop:
            del model[key]
        path = tmp_path / "zoo.yaml"
        path.write_text(yaml.safe_dump({"models": [model] if models is None else models(model)}))
        return path

    yield write
    sys.modules.pop(name, None)


def test_networks_are_built_with_their_weights(zoo, capsys):
    before = list(sys.path)
    (model,) = load_user_zoo(zoo(classes=4, source_accuracy=0.75))
    assert sys.path == before and capsys.readouterr().out == "", "what a module prints must not spoil --json"
    assert (model.name, model.size, model.channels, model.classes) == ("tiny", (10, 8), 3, 4)
    assert model.source_accuracy == 0.75 and model.parameters == 4 * 27 + 4 + 80 + 5
    assert not model.network.training and (model.network.head.weight == 1).all()


def test_images_are_resized_and_normalised(zoo):
    (model,) = load_user_zoo(zoo())
    inputs = model.prepare(np.full((2, 12, 12), 255, np.uint8))
    assert inputs.shape == (2, 3, 10, 8) and inputs.dtype == torch.float32
    torch.testing.assert_close(inputs[0, :, 3, 3], torch.tensor([1.0, 1.0, 1.5]))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"drop": ["weights", "input"]}, "zoo.yaml, model 1 (tiny) lacks weights, input."),
        ({"wieghts": 1}, "unknown key 'wieghts'; allowed: name, module, weights, input, licence"),
        ({"models": lambda model: []}, "is no zoo manifest: it needs a list `models`"),
        ({"models": lambda model: [model, model]}, "lists 'tiny' twice; names must differ."),
        (
            {"models": lambda model: [3]},
            "model 1 must be a mapping with name, module, weights, input, or the name of",
        ),
        ({"module": "no_such_module:Net"}, "no_such_module:Net can't be imported: ModuleNotFoundError"),
        ({"module": "os.path"}, "module is 'os.path'; it must name a class: package.module:Class."),
        ({"module": "collections:Nothing"}, "collections:Nothing can't be imported: AttributeError"),
        ({"module": "collections:OrderedDict"}, "makes a OrderedDict; it must make a torch.nn.Module."),
        ({"arguments": {"depth": 3}}, "Tiny({'depth': 3}) failed: TypeError"),
        ({"arguments": [3]}, "arguments is [3]; it must be a mapping"),
        ({"arguments": {"width": 6}}, "tiny.safetensors don't fit: Error(s) in loading state_dict for Tiny"),
        ({"weights": "none.safetensors"}, "cannot read the weights"),
        ({"weights": "zoo.yaml"}, "Weights must be a safetensors file, never a pickle"),
        ({"input": {"channels": 3}}, "input is {'channels': 3}; needed: {size: [H, W]"),
        ({"input": {"size": [10]}}, "input size is [10]; needed: [H, W]"),
        ({"input": {"size": [10, 0]}}, "input size is [10, 0]; needed: [H, W]"),
        ({"input": {"size": [10, 8], "channels": 2}}, "input channels is 2; it must be 1 or 3."),
        ({"input": {"size": [10, 8], "channels": 3, "mean": [1, 2]}}, "input mean is [1, 2]; needed: a number, or a"),
        ({"input": {"size": [10, 8], "std": 0}}, "input std is 0; needed: a number above 0"),
        ({"classes": 1}, "classes is 1; it must be a whole number of at least 2."),
        ({"source_accuracy": 91}, "source_accuracy is 91; it must be from 0 to 1."),
    ],
)
def test_unusable_manifests_are_refused(zoo, changes, text):
    with pytest.raises(DataError, match=re.escape(text)):
        load_user_zoo(zoo(**changes))


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read the manifest .*No such file"):
        load_user_zoo(tmp_path / "zoo.yaml")
    (tmp_path / "zoo.yaml").write_text("models: [")
    with pytest.raises(DataError, match="cannot read the manifest"):
        load_user_zoo(tmp_path / "zoo.yaml")


def test_weights_must_be_finite(zoo, tmp_path):
    path = zoo()
    (model,) = load_user_zoo(path)
    weights = model.network.state_dict() | {"head.bias": torch.full((5,), float("nan"))}
    save_file(weights, tmp_path / "tiny.safetensors")
    with pytest.raises(DataError, match="hold values that are not finite"):
        load_user_zoo(path)
