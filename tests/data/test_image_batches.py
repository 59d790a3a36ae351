"""Samples of images: what is random of one follows from seed, epoch and image; what is not is the model's own."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

from data.images.image_batches import Augmentation, ImageCache, ImageSamples, Mixing
from data.loaders import make_loader
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.input_spec import InputSpec, Preprocessing

SPEC = InputSpec((16, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), crop=0.8, interpolation="bicubic")


class Pictures:
    """Noise by number; counts how often each was opened."""

    def __init__(self) -> None:
        self.opened = [0] * 12

    def image(self, index, at_least=None):
        self.opened[index] += 1
        pixels = np.random.default_rng(index).integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def samples(augmentation=None, mixing=None, spec=SPEC, cache=1_000_000, indices=None):
    try:
        change = augmentation and Augmentation(augmentation, spec, mirror=True, least_part=0.5)
    except ModelUnavailableError:
        pytest.skip("needs torchvision")
    indices = np.arange(12) if indices is None else indices
    return ImageSamples(
        Pictures(), indices, np.arange(12)[indices] % 3, spec, ImageCache(cache), change, mixing, seed=4
    )


@pytest.mark.parametrize(
    "spec", [SPEC, InputSpec((16, 16), channels=1, mean=(0.5,), std=(0.2,)), InputSpec((16, 16), order="bgr")]
)
def test_unchanged_images_are_what_the_models_preprocessing_makes(spec):
    found = samples(spec=spec)[3]["image"]
    pixels = found.permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    assert torch.equal((pixels - mean) / std, Preprocessing(spec)(Pictures().image(3)))


@pytest.mark.parametrize("augmentation", ["light", "randaugment", "trivialaugment"])
def test_what_is_random_follows_from_seed_epoch_and_image(augmentation):
    mixing = Mixing(0.4, 1.0, SPEC.size)
    every = samples(augmentation, mixing)
    loader = make_loader(every, 5, shuffle=True, seed=1)
    by_image = {}
    for batch in loader:
        for number, index in enumerate(batch["index"].tolist()):
            by_image[index] = {name: value[number] for name, value in batch.items()}
    few = samples(augmentation, mixing, indices=np.array([7, 2]), cache=0)
    state = torch.get_rng_state()
    for number, index in ((0, 7), (1, 2)):
        alone = few[number]
        assert all(torch.equal(alone[name], by_image[index][name]) for name in ("image", "keep", "box", "label"))
    torch.set_rng_state(state)
    few.set_epoch(1)
    assert not torch.equal(few[0]["image"], by_image[7]["image"])
    assert few[0]["keep"] != by_image[7]["keep"] or not few[0]["box"].equal(by_image[7]["box"])


def test_the_cache_keeps_what_fits():
    whole, none = samples("light"), samples("light", cache=0)
    some = samples("light", cache=3 * 50 * 50 * 3)
    for part in (whole, none, some):
        for _ in range(3):
            for number in range(12):
                part[number]
    assert whole.images.opened == [1] * 12 and none.images.opened == [3] * 12
    assert sorted(set(some.images.opened)) == [1, 3]


def test_mixing_draws_shares_and_boxes_inside_the_image():
    draw = np.random.default_rng(0)
    drawn = [Mixing(0.3, 1.0, (16, 24))(draw) for _ in range(400)]
    boxes = np.array([box for _, box in drawn])
    assert (boxes[:, :2].max() <= 16) and (boxes[:, 2:].max() <= 24) and (boxes >= 0).all()
    assert (boxes[:, 0] <= boxes[:, 1]).all() and (boxes[:, 2] <= boxes[:, 3]).all()
    pasted = np.array([keep == 1.0 and box != (0, 0, 0, 0) for keep, box in drawn])
    assert 0.4 < pasted.mean() < 0.6 and all(0 <= keep <= 1 for keep, _ in drawn)
    only = Mixing(0.3, 0.0, (16, 24))
    assert all(only(draw)[1] == (0, 0, 0, 0) for _ in range(20))
