"""Loaders that feed fine-tunings."""

import numpy as np
import pytest
import torch

from data.fine_tune_batches import FineTuneLoader, TestImagesLoader
from data.zoo_tasks import to_input


@pytest.fixture(scope="module")
def tasks(benchmark):
    return [task for task in benchmark if task.shots == 6][:2]


def test_an_epoch_is_so_many_batches_of_one_task(tasks):
    loader = FineTuneLoader(tasks, batch_size=8, steps=5, copies=3, seed=0)
    batches = list(loader)
    assert len(batches) == 5 == len(loader)
    for batch in batches:
        assert batch["images"].shape == (3, 8, 1, 12, 12) and batch["images"].dtype == torch.float32
        assert batch["labels"].shape == (3, 8) and batch["labels"].dtype == torch.int64
        assert batch["classes"] == len(tasks[0].classes) > batch["labels"].max()


def test_batches_follow_from_seed_and_epoch(tasks):
    def images(seed, epoch):
        loader = FineTuneLoader(tasks, batch_size=8, steps=3, copies=2, seed=seed)
        loader.set_epoch(epoch)
        return torch.stack([batch["images"] for batch in loader])

    first = images(0, 1)
    assert torch.equal(images(0, 1), first)
    assert not torch.equal(images(1, 1), first) and not torch.equal(images(0, 0), first)


def test_every_copy_sees_all_of_its_own_draw_before_an_image_comes_again(tasks):
    task = tasks[1]
    count = len(task.train)
    loader = FineTuneLoader(tasks, batch_size=count, steps=2, copies=3, seed=0)
    loader.set_epoch(1)
    passes = list(loader)
    for copy in range(3):
        draw = task.draw(copy)
        pixels = to_input(torch.from_numpy(draw.images))
        pairs = zip(pixels, draw.labels, strict=True)
        expected = sorted((image.numpy().tobytes(), int(label)) for image, label in pairs)
        for batch in passes:
            pairs = zip(batch["images"][copy], batch["labels"][copy], strict=True)
            assert sorted((image.numpy().tobytes(), int(label)) for image, label in pairs) == expected
        assert not torch.equal(passes[0]["images"][copy], passes[1]["images"][copy]), "a new order for each pass"
    assert not torch.equal(passes[0]["images"][0], passes[0]["images"][1])


def test_batches_may_be_larger_than_the_task(tasks):
    loader = FineTuneLoader(tasks, batch_size=2 * len(tasks[0].train) + 3, steps=1, copies=1, seed=0)
    (batch,) = loader
    counts = torch.bincount(batch["labels"][0])
    assert counts.sum() == 2 * len(tasks[0].train) + 3 and counts.min() >= 12


def test_test_images_are_those_of_the_task_that_was_trained_on_last(tasks):
    train = FineTuneLoader(tasks, batch_size=8, steps=1, copies=2, seed=0)
    loader = TestImagesLoader(train)
    for number, task in enumerate(tasks):
        train.set_epoch(number)
        (batch,) = loader
        assert len(loader) == 1 and batch["task"] == number and batch["classes"] == len(task.classes)
        assert batch["images"].shape == (2, len(task.test), 1, 12, 12)
        pixels = ((batch["images"][:, :, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
        for copy in range(2):
            assert np.array_equal(pixels[copy], task.test.images)
            assert np.array_equal(batch["labels"][copy].numpy(), task.test.labels)
