"""Features of images by pretrained models: the values, the order, what is told."""

import numpy as np
import pytest
import torch
from pretrained_samples import LITE0, ListOfImages, photographs

from data.pretrained.image_features import image_features
from data.pretrained.pretrained_model import open_pretrained


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
    found = image_features(lite0, ListOfImages(images), None, batch_size=2, progress=told.append)
    assert told == [2, 4, 5] and found.from_cache == 0
    np.testing.assert_allclose(found.features[0], found.features[2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.features[1], found.features[4], rtol=1e-3, atol=1e-4)
    assert np.abs(found.features[0] - found.features[1]).max() > 0.1
