"""Which images are trained on, validated with, tested on."""

import numpy as np
import pytest

from data.data_error import DataError
from data.images.image_split import split_images

NAMES = ("a", "b", "c")


def split(labels, digests, parts=None, val=0.2, test=0.2, seed=0):
    labels = np.asarray(labels)
    return split_images(labels, digests, parts, val, test, seed, NAMES[: labels.max() + 1])


def test_each_class_is_divided_alike_and_all_images_are_somewhere():
    labels = np.repeat([0, 1], [40, 10])
    found = split(labels, [f"{number:03}" for number in range(50)])
    assert [np.bincount(labels[part]).tolist() for part in (found.train, found.val, found.test)] == [
        [24, 6], [8, 2], [8, 2],
    ]  # fmt: skip
    assert sorted([*found.train, *found.val, *found.test]) == list(range(50))
    assert found.notes == ()


def test_the_split_goes_by_content_whatever_names_and_order_are():
    labels, digests = np.repeat([0, 1], 20), [f"{number * 7919 % 104729:06}" for number in range(40)]
    found = split(labels, digests)
    order = np.random.default_rng(0).permutation(40)
    again = split(labels[order], [digests[index] for index in order])
    for name in ("train", "val", "test"):
        assert {digests[index] for index in getattr(found, name)} == {
            digests[order[index]] for index in getattr(again, name)
        }
    other = split(labels, digests, seed=1)
    assert set(other.test) != set(found.test)


def test_copies_are_on_one_side():
    labels = np.repeat([0, 1], 30)
    digests = [f"{number % 10}" for number in range(60)]  # three copies in each class, six in all
    found = split(labels, digests)
    sides = [{digests[index] for index in part} for part in (found.train, found.val, found.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(map(len, sides)) == 10


def test_given_parts_are_kept_without_copies_of_what_measures():
    parts = np.array(["train"] * 6 + ["test"] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    digests = ["p", "q", "r", "s", "t", "u", "p", "v"]  # the first one is in the test too
    found = split(labels, digests, parts, val=0.3)
    assert found.test.tolist() == [6, 7]
    assert 0 not in [*found.train, *found.val] and len(found.val) == 2
    assert any("1 image of train left out" in note for note in found.notes)
    assert any("no part val" in note for note in found.notes)


def test_small_classes_keep_an_image_to_train_on():
    labels = np.array([0] * 20 + [1, 1, 2])
    found = split(labels, [str(number) for number in range(23)], val=0.45, test=0.45)
    assert {0, 1, 2} == set(labels[found.train])
    assert (labels[found.val] == 1).sum() == 1 and not (labels[found.test] == 1).any()


@pytest.mark.parametrize(
    ("labels", "parts", "said"),
    [
        ([0, 1], None, "no image is left to validate with"),
        ([0, 0, 1, 1], ["train", "train", "test", "test"], "without an image to train on: b"),
        ([0, 1, 0, 1], ["val", "val", "test", "test"], "no images to train on"),
    ],
)
def test_what_cannot_be_divided_is_told(labels, parts, said):
    given = None if parts is None else np.array(parts)
    with pytest.raises(DataError, match=said):
        split(labels, [str(number) for number in range(len(labels))], given)
