"""The classifier around a network: normalisation, mixing, the loss."""

import torch
from torch import nn
from torch.nn import functional as F

from model.image_classifier import ImageClassifier, classification_loss, kept_share, mixed


def test_bytes_are_normalised_as_the_network_wants_them():
    images = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    for last in (False, True):
        model = ImageClassifier(
            nn.Identity(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), frozen=False, fixed_statistics=False, channels_last=last
        )
        wanted = (images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(-1, 1, 1)) / torch.tensor(
            [0.2, 0.3, 0.4]
        ).view(-1, 1, 1)
        assert torch.equal(model(images), wanted)
        assert model(images).is_contiguous(memory_format=torch.channels_last) is last
        assert model.state_dict() == {}


def test_a_frozen_body_stays_in_evaluation():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5))
    model = ImageClassifier(network, (0.5,) * 3, (0.2,) * 3, True, fixed_statistics=False, channels_last=False).train()
    images = torch.randint(0, 256, (4, 2, 2, 3), dtype=torch.uint8)
    assert model.training and torch.equal(model(images), model(images)) and (network[0].running_mean == 0).all()
    assert ImageClassifier(network, (0.5,) * 3, (0.2,) * 3, False, False, False).train().network.training


def test_statistics_of_batch_norms_can_be_kept_while_the_body_learns():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5))
    model = ImageClassifier(network, (0.5,) * 3, (0.2,) * 3, False, fixed_statistics=True, channels_last=False).train()
    model(torch.randint(0, 256, (4, 2, 2, 3), dtype=torch.uint8))
    assert network[2].training and not network[0].training and (network[0].running_mean == 0).all()


def test_mixing_takes_from_the_image_before():
    pixels = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 4)
    keep, box = torch.tensor([0.25, 1.0, 1.0]), torch.tensor([[0, 0, 0, 0], [0, 1, 1, 3], [0, 2, 0, 4]])
    found = mixed(pixels, keep, box)
    assert torch.equal(found[0], torch.full((1, 2, 4), 1.5))  # a quarter of 0, three of 2
    assert found[1, 0].tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]] and (found[2] == 1).all()
    assert kept_share(keep, box, (2, 4)).tolist() == [0.25, 0.75, 0.0]


def test_the_loss_is_torchs_and_mixes_both_classes():
    logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 2])
    loss, count = classification_loss(logits, labels, smoothing=0.1)
    assert torch.allclose(loss, F.cross_entropy(logits, labels, label_smoothing=0.1)) and count == 6
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    loss, count = classification_loss(logits, labels, weights)
    assert torch.allclose(loss, F.cross_entropy(logits, labels, weights)) and count == weights[labels].sum()
    share = torch.tensor([1.0, 0.5, 0.0, 0.3, 1.0, 0.9])
    targets = share[:, None] * F.one_hot(labels, 4) + (1 - share[:, None]) * F.one_hot(labels.roll(1), 4)
    loss, _ = classification_loss(logits, labels, share=share)
    assert torch.allclose(loss, F.cross_entropy(logits, targets))
