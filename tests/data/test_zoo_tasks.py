"""The plan of the zoo and the loaders that feed its networks."""

from collections import Counter

import numpy as np
import pytest
import torch

from data.data_error import DataError
from data.zoo_images import VIEWS, apply_view, load_domains
from data.zoo_tasks import IGNORED_LABEL, HeldOutLoader, TaskLoader, plan_tasks, to_input
from model.zoo_families import FAMILIES


@pytest.fixture(scope="module")
def domains():
    return load_domains()


@pytest.fixture(scope="module")
def tasks(domains):
    return plan_tasks(domains, list(FAMILIES), epochs=20, initialisations=3, seed=0)


def test_plan_covers_every_domain_and_view_with_families_in_balance(tasks, domains):
    assert len(tasks) == 96 == len({task.name for task in tasks})
    assert {(task.domain, task.view) for task in tasks} == {(name, view) for name in domains for view in VIEWS}
    assert len(domains) >= 8
    per_family = Counter(task.family for task in tasks)
    assert set(per_family) == set(FAMILIES) and max(per_family.values()) - min(per_family.values()) <= 1
    assert all(len({task.family for task in tasks if task.domain == name}) == 5 for name in domains)
    families = [task.family for task in tasks]
    assert families == sorted(families, key=list(FAMILIES).index)


def test_plan_varies_training_and_undertrains_one_in_six(tasks):
    assert sum(task.undertrained for task in tasks) == 16
    assert all(task.epochs <= 3 for task in tasks if task.undertrained)
    trained = [task for task in tasks if not task.undertrained]
    assert {min(task.epochs for task in trained), max(task.epochs for task in trained)} <= set(range(10, 21))
    assert all(max(task.epochs for task in tasks if task.family == family) == 20 for family in FAMILIES)
    assert len({task.label_noise for task in tasks}) == 3 and len({task.seed for task in tasks}) == 96
    assert {task.init_seed for task in tasks} == {0, 1, 2}
    assert all(6 <= len(task.classes) <= 10 for task in tasks) and len({len(task.classes) for task in tasks}) == 5


def test_plan_follows_from_its_seed(tasks, domains):
    assert plan_tasks(domains, list(FAMILIES), epochs=20, initialisations=3, seed=0) == tasks
    assert plan_tasks(domains, list(FAMILIES), epochs=20, initialisations=3, seed=1) != tasks


def test_every_network_gets_its_own_images_and_labels(tasks, domains):
    chosen = [next(task for task in tasks if task.view == view and not task.label_noise) for view in VIEWS]
    loader = TaskLoader(chosen, domains, batch_size=16, images_per_epoch=64)
    loader.set_epoch(5)
    (batch, *rest) = [batch for batch in loader]
    active = [number for number, task in enumerate(chosen) if task.epochs > 5]
    assert len(rest) == 3 == len(loader) - 1 and batch["networks"] == tuple(active)
    assert batch["images"].shape == (len(active), 16, 1, 12, 12) and batch["labels"].shape == (len(active), 16)
    for place, number in enumerate(active):
        task = chosen[number]
        images, labels = domains[task.domain].select("source_train", task.classes)
        known = {
            (image.tobytes(), int(label)) for image, label in zip(apply_view(images, task.view), labels, strict=True)
        }
        pixels = ((batch["images"][place, :, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
        shown = {(image.tobytes(), int(label)) for image, label in zip(pixels, batch["labels"][place], strict=True)}
        assert shown <= known


def test_an_epoch_is_part_of_one_stream_without_repetition_until_the_set_is_used_up(tasks, domains):
    task = next(task for task in tasks if task.domain == "digits" and task.view == "plain")
    count = len(domains["digits"].select("source_train", task.classes)[1])
    loader = TaskLoader([task], domains, batch_size=10, images_per_epoch=count // 2)
    first, second = loader._order(0), None
    loader.set_epoch(1)
    second = loader._order(0)
    seen = torch.cat([first, second]).tolist()
    assert len(seen) == 2 * (count // 2) == len(set(seen))
    loader.set_epoch(0)
    assert torch.equal(loader._order(0), first)


def test_finished_networks_leave_the_batches(tasks, domains):
    loader = TaskLoader(tasks, domains, batch_size=8, images_per_epoch=8)
    loader.set_epoch(19)
    (batch,) = loader
    assert {tasks[number].epochs for number in batch["networks"]} == {20}
    assert 5 <= len(batch["networks"]) < 30


def test_label_noise_is_the_planned_share_and_fixed(tasks, domains):
    for task in (task for task in tasks if task.view == "inverted" and task.label_noise):
        _, clean = domains[task.domain].select("source_train", task.classes)
        first, again = (TaskLoader([task], domains, 8, 64)._sets[0][1].numpy() for _ in range(2))
        assert np.array_equal(first, again)
        assert abs((first != clean).mean() - task.label_noise) < 0.05
        assert first.max() < len(task.classes)


def test_held_out_images_are_padded_with_ignored_labels(tasks, domains):
    loader = HeldOutLoader(tasks, domains)
    (batch,) = loader
    lengths = [len(domains[task.domain].select("source_test", task.classes)[1]) for task in tasks]
    assert (batch["labels"] != IGNORED_LABEL).sum(dim=1).tolist() == lengths
    assert len(loader.dataset) == sum(lengths)
    sample = loader.dataset[sum(lengths) - 1]
    assert sample["networks"] == (95,) and sample["images"].shape == (1, 1, 1, 12, 12)
    with pytest.raises(IndexError):
        loader.dataset[sum(lengths)]


def test_input_runs_from_minus_one_to_one():
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(72).view(1, 12, 12)
    assert set(to_input(images).flatten().tolist()) == {-1.0, 1.0}
    assert to_input(images).shape == (1, 1, 12, 12)


def test_batch_larger_than_an_epoch_is_refused(tasks, domains):
    with pytest.raises(DataError, match="batch_size 65 is more than images_per_epoch 64; lower it"):
        TaskLoader(tasks, domains, batch_size=65, images_per_epoch=64)
