"""Features of images by pretrained models: the values, the order, what is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_samples import LITE0, ListOfImages, photographs

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.image_features import image_features
from data.pretrained.input_spec import InputSpec
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.network_head import find_head
from data.pretrained.pretrained_model import PretrainedModel, open_pretrained
from data.pretrained.zoo_manifest import ZooEntry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def lite0():
    """EfficientNet-Lite0 as it was trained on ImageNet."""
    return open_pretrained(LITE0)


def test_photographs_are_told_for_what_they_are(lite0):
    """A Chinese temple and a flower, by weights that were really trained: 698 is palace, 985 is daisy."""
    found = image_features(lite0, ListOfImages(photographs()), None, batch_size=2)
    assert found.features.shape == (2, 1280) and found.features.dtype == np.float32
    assert found.logits.argmax(axis=1).tolist() == [698, 985]
    with torch.inference_mode():
        pixels = torch.stack([lite0.preprocessing(image) for image in photographs()])
        np.testing.assert_allclose(found.logits, lite0(pixels).numpy(), rtol=1e-4, atol=1e-4)


def test_rows_keep_the_order_of_images_whatever_the_batches(lite0):
    images = [*photographs(), *photographs(), photographs()[1]]
    told = []
    dataset = ListOfImages(images)
    dataset.digests = ["a", "b", "c", "d", "e"]
    found = image_features(lite0, dataset, None, batch_size=2, progress=told.append)
    assert told == [2, 4, 5] and found.from_cache == 0
    np.testing.assert_allclose(found.features[0], found.features[2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.features[1], found.features[4], rtol=1e-3, atol=1e-4)
    assert np.abs(found.features[0] - found.features[1]).max() > 0.1


class Tiny(torch.nn.Module):
    """A network of a few weights, which counts its passes and can be told to fail."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.convolution, self.last = torch.nn.Conv2d(3, 6, 3), torch.nn.Linear(6, 4)
        self.most, self.passes = 100, []

    def forward(self, images):
        self.passes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.last(self.convolution(images).mean((2, 3)))


def tiny_model(name="tiny", **changes):
    """Return a model over a `Tiny`, whose weights may be changed."""
    network = Tiny().eval()
    with torch.no_grad():
        for key, value in changes.items():
            network.get_parameter(key.replace("__", ".")).fill_(value)
    spec = InputSpec((24, 24), 3)
    loaded = LoadedNetwork(network, spec, (), "memory", "test")
    model = PretrainedModel(
        ZooEntry(name, "module", "a:B", where=name), loaded, spec, find_head(network, spec, (), name)
    )
    network.passes.clear()
    return model


def crops(count):
    """Return different images cut from the photographs."""
    return [photographs()[index % 2].crop((7 * index, 0, 7 * index + 60, 50)) for index in range(count)]


def test_what_was_computed_is_read(tmp_path):
    first = ListOfImages(crops(10))
    before = image_features(tiny_model(), first, tmp_path, batch_size=4)
    assert sorted(first.asked) == list(range(10)) and before.from_cache == 0
    # Another dataset, which holds eight of them in another order, one twice, and two new ones.
    other = ListOfImages([*first.images[9:1:-1], first.images[5], *crops(12)[10:]], "other")
    told = []
    after = image_features(tiny_model(), other, tmp_path, batch_size=4, progress=told.append)
    assert after.from_cache == 9 and sorted(other.asked) == [9, 10] and told == [9, 11]
    np.testing.assert_array_equal(after.features[:8], before.features[9:1:-1])
    np.testing.assert_array_equal(after.features[8], before.features[5])
    np.testing.assert_array_equal(after.logits[:8], before.logits[9:1:-1])
    assert after.seconds_an_image > 0 and not after.notes
    # Other weights, or another input, are another model.
    assert image_features(tiny_model(last__bias=1.0), first, tmp_path).from_cache == 0
    again = image_features(tiny_model(), first, tmp_path)
    assert again.from_cache == 10 and again.seconds_an_image > 0


@pytest.mark.parametrize("damage", ["byte", "half", "empty"])
def test_damaged_files_are_made_anew_aloud(tmp_path, damage):
    images = ListOfImages(crops(5))
    before = image_features(tiny_model(), images, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes({"byte": bytes(content), "half": bytes(content[: len(content) // 2]), "empty": b""}[damage])
    after = image_features(tiny_model(), images, tmp_path)
    assert after.from_cache == 0 and len(after.notes) == 1 and f"{path} are damaged" in after.notes[0]
    np.testing.assert_array_equal(after.features, before.features)
    assert image_features(tiny_model(), images, tmp_path).from_cache == 5


KILLED = """
import os, signal, sys
from pathlib import Path
import data.pretrained.image_features as features
from test_image_features import ListOfImages, crops, tiny_model

features._CHUNK_IMAGES = 4
def progress(done):
    if done >= 8:
        os.kill(os.getpid(), signal.SIGKILL)
features.image_features(tiny_model(), ListOfImages(crops(12)), Path(sys.argv[1]), batch_size=2, progress=progress)
"""


def test_a_killed_process_loses_no_more_than_a_chunk(tmp_path):
    path = f"{ROOT}:{Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    images = ListOfImages(crops(12))
    after = image_features(tiny_model(), images, tmp_path)
    assert 4 <= after.from_cache <= 8 and len(images.asked) == 12 - after.from_cache and not after.notes
    np.testing.assert_allclose(
        after.features, image_features(tiny_model(), images, None).features, rtol=1e-4, atol=1e-5
    )


def test_an_interrupted_call_keeps_what_is_done(tmp_path):
    def progress(done):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_features(tiny_model(), ListOfImages(crops(20)), tmp_path, batch_size=2, progress=progress)
    assert image_features(tiny_model(), ListOfImages(crops(20)), tmp_path).from_cache == 6


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    found = image_features(tiny_model(), ListOfImages(crops(3)), tmp_path / "file" / "cache")
    assert found.features.shape == (3, 6) and len(found.notes) == 1
    assert (
        "features are not kept: cannot write" in found.notes[0]
        and "is a file where a folder should be" in found.notes[0]
    )


def test_a_cache_that_is_too_large_forgets_what_was_used_longest_ago(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        image_features(tiny_model(name, last__bias=float(number)), ListOfImages(crops(3)), tmp_path)
        for path in tmp_path.rglob("*.safetensors"):
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    found = image_features(tiny_model("a", last__bias=0.0), ListOfImages(crops(3)), tmp_path, cache_limit=size - 1)
    assert found.from_cache == 3 and "were removed" in found.notes[0]
    assert sorted(path.parent.name[0] for path in tmp_path.rglob("*.safetensors")) == ["a", "c"]


def test_a_small_memory_halves_the_batch():
    model = tiny_model()
    model.body.most = 3
    found = image_features(model, ListOfImages(crops(10)), None, batch_size=8)
    assert model.body.passes == [8, 4, 2, 2, 2, 2, 2] and len(found.notes) == 2
    assert "too little memory for 8 images at a time; 4 were taken" in found.notes[0]
    np.testing.assert_allclose(found.features, image_features(tiny_model(), ListOfImages(crops(10)), None).features,
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    model.body.most = 0
    with pytest.raises(ModelUnavailableError, match="the memory of cpu is too small for one image"):
        image_features(model, ListOfImages(crops(2)), None)


def test_features_that_are_not_finite_are_told(tmp_path):
    with pytest.raises(ModelUnavailableError, match="tiny: features or logits of 3 of 3 images are not finite"):
        image_features(tiny_model(convolution__bias=float("nan")), ListOfImages(crops(3)), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
