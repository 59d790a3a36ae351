"""Users' datasets: what is read, and what is refused with which words."""

import re

import numpy as np
import pytest
from PIL import Image

from data.data_error import DataError
from data.user_datasets import read_dataset

GREY = np.arange(6 * 20 * 16, dtype=np.uint8).reshape(6, 20, 16)
LABELS = np.array([4, 9, 4, 9, 4, 9])


def save(folder, **arrays):
    path = folder / "my.npz"
    np.savez(path, **({"images": GREY, "labels": LABELS} | arrays))
    return path


def test_npz_is_averaged_down_to_12_by_12(tmp_path):
    blocks = np.kron(np.arange(144, dtype=np.uint8).reshape(12, 12), np.ones((2, 2), np.uint8))
    dataset = read_dataset(save(tmp_path, images=np.stack([blocks] * 6)))
    assert dataset.name == "my" and dataset.size == (24, 24)
    assert dataset.images.images.shape == (6, 12, 12) and dataset.images.images.dtype == np.uint8
    assert (dataset.images.images == np.arange(144).reshape(12, 12)).all()
    assert dataset.images.labels.tolist() == [0, 1, 0, 1, 0, 1] and dataset.images.class_names == ("4", "9")


@pytest.mark.parametrize("labels", [np.array(list("xyxyxy")), np.array([b"x", b"y"] * 3)], ids=["text", "bytes"])
def test_labels_may_be_text(tmp_path, labels):
    assert read_dataset(save(tmp_path, labels=labels)).images.class_names == ("x", "y")


def test_float_colour_and_one_channel_images_mean_the_same_as_grey_bytes(tmp_path):
    grey = read_dataset(save(tmp_path)).images.images
    for images in (
        GREY[..., None],
        np.repeat(GREY[..., None], 3, axis=3),
        (GREY / 255).astype(np.float32),
        np.repeat(GREY[..., None], 3, axis=3) / 255,
    ):
        assert np.abs(read_dataset(save(tmp_path, images=images)).images.images.astype(int) - grey).max() <= 1


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"labels": np.zeros(6, int)}, "has 1 class; at least 2 are needed."),
        ({"labels": np.array([0, 0, 0, 0, 0, 1])}, "class 1 has 1 image; each class needs at least 2."),
        ({"labels": np.arange(6)}, "class 0 has 1 image (and 5 more classes); each class needs at least 2."),
        ({"images": GREY[0]}, "images are (20, 16)."),
        ({"images": np.zeros((6, 3, 20, 16))}, "images are (6, 3, 20, 16). Channels come last"),
        ({"images": np.zeros((6, 20, 16, 2))}, "images are (6, 20, 16, 2). Needed"),
        ({"images": np.zeros((6, 0, 16))}, "images are (6, 0, 16): there is none."),
        ({"images": np.zeros((0, 8, 8)), "labels": np.zeros(0, int)}, "images are (0, 8, 8): there is none."),
        ({"images": np.array(3)}, "images are (). Needed"),
        ({"images": np.where(GREY == 7, np.nan, 0.5)}, "pixels are NaN or infinite"),
        ({"images": np.where(GREY == 7, np.inf, 0.5)}, "pixels are NaN or infinite"),
        ({"images": GREY * 1.0}, "float pixels go from 0 to 255; they must be from 0 to 1."),
        ({"images": GREY / 255 - 0.5}, "float pixels go from -0.5 to 0.5; they must be from 0 to 1."),
        ({"images": GREY.astype(np.int64)}, "images are int64. Needed"),
        ({"labels": LABELS[:5]}, "labels are (5,), but there are 6 images."),
        ({"labels": LABELS[:, None]}, "labels are (6, 1), but there are 6 images."),
        ({"labels": LABELS / 2}, "labels are float64. Needed"),
        ({"labels": LABELS.astype(object)}, "holds an array of Python objects, which is never unpickled."),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, arrays, text):
    with pytest.raises(DataError, match=re.escape(text)):
        read_dataset(save(tmp_path, **arrays))


def test_missing_keys_are_named(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY, labels=LABELS)
    with pytest.raises(DataError, match=re.escape("lacks images; it holds x, labels. Needed are `images`")):
        read_dataset(tmp_path / "my.npz")


def test_missing_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        read_dataset(tmp_path / "none.npz")
    whole = save(tmp_path).read_bytes()
    (tmp_path / "my.npz").write_bytes(whole[:-80])
    with pytest.raises(DataError, match=r"is no \.npz file, or is damaged"):
        read_dataset(tmp_path / "my.npz")
    spoilt = bytearray(whole)
    spoilt[300:340] = bytes(40)
    (tmp_path / "my.npz").write_bytes(spoilt)
    with pytest.raises(DataError, match="cannot read .*my.npz: Bad CRC-32"):
        read_dataset(tmp_path / "my.npz")
    (tmp_path / "my.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"is neither an \.npz file nor a folder of images"):
        read_dataset(tmp_path / "my.csv")


def make_folder(path, counts):
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(GREY[number]).save(path / name / f"{number}.png")
    return path


def test_a_folder_has_a_class_for_each_sub_folder(tmp_path):
    dataset = read_dataset(make_folder(tmp_path / "pets", {"dog": 3, "cat": 2}))
    assert dataset.name == "pets" and dataset.images.class_names == ("cat", "dog")
    assert dataset.images.labels.tolist() == [0, 0, 1, 1, 1] and dataset.images.images.shape == (5, 12, 12)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, "has no images; needed: one sub-folder a class"),
        ({"cat": 3}, "has 1 class; at least 2 are needed."),
        ({"cat": 3, "dog": 0}, "class dog has 0 images; each class needs at least 2."),
        ({"cat": 3, "dog": 1}, "class dog has 1 image; each class needs at least 2."),
    ],
)
def test_unusable_folders_are_refused(tmp_path, counts, text):
    with pytest.raises(DataError, match=re.escape(text)):
        read_dataset(make_folder(tmp_path, counts))


def test_an_unreadable_image_is_named(tmp_path):
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read image .*dog/1\.png"):
        read_dataset(tmp_path)
    whole = (tmp_path / "dog" / "2.png").read_bytes()
    (tmp_path / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot read"):
        read_dataset(tmp_path)
