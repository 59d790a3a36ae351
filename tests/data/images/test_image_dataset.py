"""Datasets of a user's images: what is read, left out, and told."""

import pickle

import numpy as np
import pytest
from image_samples import make_folder

from data.data_error import DataError
from data.images.image_dataset import LeftOut, read_image_dataset


def test_a_folder_has_a_class_for_each_sub_folder(tmp_path):
    dataset = read_image_dataset(make_folder(tmp_path / "pets", {"dog": 3, "cat": 2}))
    assert dataset.name == "pets" and dataset.class_names == ("cat", "dog") and len(dataset) == 5
    assert dataset.keys == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1] and dataset.labels.dtype == np.int64
    assert [dataset.image(index).getpixel((0, 0)) for index in range(5)] == [(n, 0, 77) for n in (3, 4, 0, 1, 2)]
    assert dataset.left_out == () and dataset.notes == () and dataset.parts is None


def test_a_subset_and_a_copy_in_another_process_open_the_same_images(tmp_path):
    dataset = pickle.loads(pickle.dumps(read_image_dataset(make_folder(tmp_path, {"dog": 3, "cat": 2}))))
    some = dataset.subset(np.array([4, 0]))
    assert some.keys == ("dog/2.png", "cat/0.png") and some.class_names == ("cat", "dog")
    assert some.image(0).getpixel((0, 0)) == (2, 0, 77) and some.digests == (dataset.digests[4], dataset.digests[0])
    assert some.digest != dataset.digest == dataset.subset(np.ones(5, bool)).digest


def test_a_file_that_is_no_image_is_left_out(tmp_path):
    make_folder(tmp_path, {"dog": 3, "cat": 2})
    (tmp_path / "cat" / "x.jpg").write_text("hello")
    dataset = read_image_dataset(tmp_path)
    assert len(dataset) == 5 and dataset.left_out == (LeftOut("cat/x.jpg", "text, no image"),)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least 2 classes with at least 2 images each are needed; there are cat 3"):
        read_image_dataset(make_folder(tmp_path, {"cat": 3}))


def test_an_npz_has_the_pixels_that_were_saved(tmp_path):
    pixels = np.arange(6 * 5 * 4 * 3, dtype=np.uint8).reshape(6, 5, 4, 3)
    np.savez(tmp_path / "my.npz", images=pixels, labels=np.array(list("abcabc")))
    dataset = read_image_dataset(tmp_path / "my.npz")
    assert dataset.class_names == ("a", "b", "c") and dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert all((np.asarray(dataset.image(row)) == pixels[row]).all() for row in range(6))
    assert dataset.keys[5] == "row 5" and dataset.name == "my"
