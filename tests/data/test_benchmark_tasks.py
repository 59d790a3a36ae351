"""The plan of the benchmark: what tasks are made of, and what they never share."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data.benchmark_tasks import MOST_TEST_IMAGES, SHOTS, plan_benchmark
from data.data_error import DataError
from data.zoo_images import POOLS, VIEWS, ImageDomain


def made_up(classes: int, images: int = 10) -> ImageDomain:
    """A domain with so many images of each class in each pool."""
    labels = np.tile(np.repeat(np.arange(classes), images), len(POOLS))
    pools = np.repeat(np.arange(len(POOLS)), classes * images).astype(np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 12, 12), dtype=np.uint8)
    names = tuple(f"class {label}" for label in range(classes))
    return ImageDomain("made_up", pixels, labels, pools, names, tuple(range(min(classes, 10))), "random")


def test_every_domain_has_four_tasks_of_both_splits(benchmark, image_domains):
    assert len(benchmark) == 64 == len({task.name for task in benchmark})
    assert Counter(task.domain for task in benchmark) == dict.fromkeys(image_domains, 4)
    for name in image_domains:
        own = [task for task in benchmark if task.domain == name]
        assert {task.split for task in own} == {"train", "test"}, name
        assert len({task.view for task in own}) == 4, name


def test_views_are_spread_evenly(benchmark):
    count = Counter(task.view for task in benchmark)
    assert set(count) == set(VIEWS) and max(count.values()) - min(count.values()) <= 1


def test_training_images_and_test_images_come_from_pools_of_their_own(benchmark):
    for task in benchmark:
        pools = task.source.pools
        assert set(pools[task.train_rows]) == {POOLS.index("target_train")}, task.name
        assert set(pools[task.test_rows]) == {POOLS.index("target_test")}, task.name
        for rows in (task.train_rows, task.test_rows):
            assert len(set(rows.tolist())) == len(rows), task.name
        assert not set(task.train_rows.tolist()) & set(task.test_rows.tolist()), task.name


def test_no_class_of_a_test_task_is_in_a_training_task_of_its_domain(benchmark, image_domains):
    for name in image_domains:
        classes = {split: set() for split in ("train", "test")}
        for task in benchmark:
            if task.domain == name:
                classes[task.split].update(task.classes)
        assert not classes["train"] & classes["test"], name


def test_sizes_of_a_task(benchmark):
    assert {task.shots for task in benchmark} == set(SHOTS) == {6, 12, 25}
    assert {len(task.classes) for task in benchmark} == {3, 4, 5, 6}
    for task in benchmark:
        assert len(set(task.classes)) == len(task.classes)
        assert Counter(task.train.labels.tolist()) == dict.fromkeys(range(len(task.classes)), task.shots), task.name
        assert task.train.images.shape == (task.shots * len(task.classes), 12, 12)
        assert task.train.class_names == tuple(task.source.class_names[label] for label in task.classes)
        assert np.array_equal(np.array(task.classes)[task.test.labels], task.source.labels[task.test_rows])


def test_accuracy_is_measured_on_all_images_there_are_up_to_600(benchmark):
    enough = 0
    for task in benchmark:
        pool = task.source.pools == POOLS.index("target_test")
        counts = [int((pool & (task.source.labels == label)).sum()) for label in task.classes]
        assert len(task.test_rows) == len(task.test) == min(MOST_TEST_IMAGES, sum(counts)), task.name
        if len(counts) >= 4 and min(counts) >= 100:
            enough += 1
            assert 400 <= len(task.test) <= 600, task.name
    assert enough >= 10


def test_plan_follows_from_its_seed(benchmark, image_domains):
    def essence(plan):
        return [(t.name, t.view, t.classes, t.shots, t.train_rows.tolist(), t.test_rows.tolist()) for t in plan]

    assert essence(plan_benchmark(image_domains)) == essence(benchmark)
    assert essence(plan_benchmark(image_domains, seed=8)) != essence(benchmark)


def test_first_draw_is_the_dataset_and_others_are_drawn_from_the_same_pool(benchmark):
    differing = 0
    for task in benchmark:
        plain = replace(task, view="plain")  # the noisy view's noise depends on what else is shown
        first, second = plain.draw(0), plain.draw(1)
        assert first is plain.train
        assert np.array_equal(first.labels, second.labels) and first.class_names == second.class_names, task.name
        assert np.array_equal(second.images, replace(task, view="plain").draw(1).images), "a draw is one for ever"
        for label, original in enumerate(task.classes):
            images, _ = task.source.select("target_train", (original,))
            pool = Counter(image.tobytes() for image in images)
            drawn = Counter(image.tobytes() for image in second.images[second.labels == label])
            assert drawn <= pool, f"{task.name}: an image of another pool or class, or one drawn twice"
            if len(images) > task.shots:
                differing += 1
        larger = any(len(task.source.select("target_train", (label,))[1]) > task.shots for label in task.classes)
        if larger:
            assert not np.array_equal(first.images, second.images), task.name
            assert not np.array_equal(second.images, plain.draw(2).images), task.name
    assert differing > 100


def test_view_is_applied(benchmark):
    inverted = next(task for task in benchmark if task.view == "inverted")
    assert np.array_equal(inverted.train.images, 255 - inverted.source.images[inverted.train_rows])
    assert np.array_equal(inverted.test.images, 255 - inverted.source.images[inverted.test_rows])


def test_a_domain_with_six_classes_is_enough_and_with_five_it_is_refused():
    for task in plan_benchmark({"made_up": made_up(6)}):
        assert len(task.classes) == 3 and task.shots == 6
    with pytest.raises(DataError, match="domain made_up has 5 classes; its training and its test tasks need 3 each"):
        plan_benchmark({"made_up": made_up(5)})


def test_a_domain_with_too_few_images_is_refused():
    with pytest.raises(DataError, match="domain made_up has a class with 5 images to fine-tune on; 6 are needed"):
        plan_benchmark({"made_up": made_up(8, images=5)})
