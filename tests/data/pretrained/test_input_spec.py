"""Images become what models were trained on: to the bit as timm and torchvision, to 1e-5 as transformers."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from pretrained_samples import photographs

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.hf_source import hf_input
from data.pretrained.input_spec import InputSpec, Preprocessing
from data.pretrained.timm_source import timm_input
from data.pretrained.torchvision_import import import_timm, import_torchvision
from data.pretrained.torchvision_source import torchvision_input
from data.pretrained.zoo_manifest import zoo_entry


def shapes():
    """Return photographs wide, high, square, with odd sides, small and tiny."""
    china, flower = photographs()
    return (china, flower.rotate(90, expand=True), china.crop((0, 0, 333, 333)), flower.crop((10, 10, 271, 357)),
            china.resize((101, 67)), flower.resize((30, 19)))  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_pct": 0.95, "interpolation": "bilinear"},
        {"crop_pct": 1.0, "input_size": (3, 160, 160)},
        {"crop_pct": 0.9, "input_size": (3, 128, 192)},
        {"crop_mode": "squash", "crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"crop_mode": "squash", "crop_pct": 0.8},
        {"crop_mode": "border", "crop_pct": 1.0},
        {"crop_mode": "border", "crop_pct": 0.9},
        {"interpolation": "lanczos", "crop_pct": 0.965, "input_size": (3, 289, 289)},
    ],
)
def test_as_timm_does_it(changes):
    settings = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225), "crop_pct": 0.875, "crop_mode": "center"} | changes  # fmt: skip
    theirs = import_timm("timm.data").create_transform(**settings)
    ours = Preprocessing(timm_input(settings))
    for image in shapes():
        given = ours(image)
        assert given.dtype == torch.float32 and given.shape == settings["input_size"]
        assert torch.equal(given, theirs(image)), image.size


def test_as_torchvision_does_it():
    models = import_torchvision("torchvision.models")
    done = set()
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            spec = torchvision_input(weights)
            if spec not in done:
                done.add(spec)
                assert torch.equal(Preprocessing(spec)(shapes()[3]), weights.transforms()(shapes()[3])), weights
    assert len(done) > 15


PROCESSORS = {
    "ViT": {"size": {"height": 224, "width": 224}},
    "ViT without normalisation": {"do_normalize": False, "size": {"height": 64, "width": 96}},
    "ConvNext": {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
    "ConvNext large": {"size": {"shortest_edge": 384}},
    "CLIP": {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}},
    "Bit": {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}},
    "Dinov2": {"kind": "Bit", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
    "DeiT": {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}},
    "Levit": {},
    "MobileNetV1": {},
    "MobileNetV2": {},
    "MobileViT": {},
    "PoolFormer": {},
    "EfficientNet": {},
    "EfficientNet with an offset": {"rescale_offset": True, "rescale_factor": 1 / 127.5},
    "Siglip": {},
    "Beit": {},
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_as_transformers_does_it(name):
    import_torchvision()
    import transformers

    settings = dict(PROCESSORS[name])
    kind = settings.pop("kind", name.partition(" ")[0])
    room = importlib.import_module(f"transformers.models.{_room(kind)}.image_processing_pil_{_room(kind)}")
    processor = getattr(room, f"{kind}ImageProcessorPil")(**settings)
    assert transformers.__version__
    ours = Preprocessing(hf_input(processor, zoo_entry("hf/a/b")))
    for image in shapes()[:5]:
        theirs = processor(image, return_tensors="np")["pixel_values"][0]
        given = ours(image).numpy()
        assert given.shape == theirs.shape
        np.testing.assert_allclose(given, theirs, atol=1e-5, err_msg=str(image.size))


def _room(kind):
    return {"MobileNetV1": "mobilenet_v1", "MobileNetV2": "mobilenet_v2"}.get(kind, kind.lower())


def test_what_cannot_be_said_is_refused():
    import_torchvision()
    from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

    with pytest.raises(
        ModelUnavailableError, match="what the image processor ViltImageProcessorPil of a/b does can't be"
    ):
        hf_input(ViltImageProcessorPil(), zoo_entry("hf/a/b"))


def test_grey_models_and_other_orders():
    china = photographs()[0]
    grey = Preprocessing(InputSpec((20, 30), 1, (0.0,), (1.0,), fit="stretch"))(china)
    assert grey.shape == (1, 20, 30)
    np.testing.assert_allclose(grey[0].numpy() * 255, np.asarray(china.convert("L").resize((30, 20), 2)), atol=1e-4)
    spec = InputSpec((50, 50), 3, (0.0,) * 3, (1.0,) * 3)
    swapped = InputSpec((50, 50), 3, (0.0,) * 3, (1.0,) * 3, order="bgr")
    assert torch.equal(Preprocessing(spec)(china).flip(0), Preprocessing(swapped)(china))
    assert torch.equal(Preprocessing(spec)(china.convert("L")), Preprocessing(spec)(china.convert("L").convert("RGB")))
    assert Preprocessing(spec)(Image.new("RGB", (1, 500), (255, 0, 0))).shape == (3, 50, 50)
