"""Images in arrays: .npz files of all shapes and types, and IDX files."""

import re
import struct

import numpy as np
import pytest

from data.data_error import DataError
from data.images.image_dataset import LeftOut, read_image_dataset

GREY = np.arange(6 * 5 * 7, dtype=np.uint8).reshape(6, 5, 7)
COLOUR = np.arange(6 * 5 * 7 * 3).reshape(6, 5, 7, 3).astype(np.uint8)
LABELS = np.array([4, 9, 4, 9, 4, 9])


def save(folder, **arrays):
    np.savez(folder / "my.npz", **arrays)
    return folder / "my.npz"


def pixels_of(dataset, row=0):
    return np.asarray(dataset.image(row))


@pytest.mark.parametrize(
    ("images", "expected", "note"),
    [
        (GREY, np.repeat(GREY[2][..., None], 3, 2), ()),
        (COLOUR, COLOUR[2], ()),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR[2], ("the channels are taken to come first",)),
        (GREY.astype(np.int64), np.repeat(GREY[2][..., None], 3, 2), ("0 is black, 255 white",)),
        (COLOUR / 255, COLOUR[2], ("0 is black, 1 white",)),
        (COLOUR.astype(np.float32), COLOUR[2], ("0 is black, 255 white",)),
        (COLOUR.astype(np.uint16) * 257, COLOUR[2], ("0 is black, 65535 white",)),
        (COLOUR / 127.5 - 1, COLOUR[2], ("-1 is black, 1 white",)),
    ],
    ids=["grey", "colour", "channels first", "int64", "0 to 1", "0 to 255", "uint16", "-1 to 1"],
)
def test_shapes_and_types(tmp_path, images, expected, note):
    dataset = read_image_dataset(save(tmp_path, images=images, labels=LABELS))
    assert np.abs(pixels_of(dataset, 2).astype(int) - expected).max() <= 1
    assert dataset.class_names == ("4", "9") and dataset.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert len(dataset.notes) == len(note) and all(told in dataset.notes[0] for told in note)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("x_train", "y_train", "x_test", "y_test"), ("train", "test")),
        (("train_images", "train_labels", "val_images", "val_labels"), ("train", "val")),
        (("X_train", "y_train", "X_valid", "y_valid"), ("train", "val")),
    ],
)
def test_parts(tmp_path, names, parts):
    arrays = dict(zip(names, (COLOUR, LABELS[:, None], COLOUR[:4] + 1, LABELS[:4, None]), strict=True))
    dataset = read_image_dataset(save(tmp_path, **arrays))
    assert dataset.parts.tolist() == [parts[0]] * 6 + [parts[1]] * 4
    assert (pixels_of(dataset, 7) == COLOUR[1] + 1).all() and dataset.keys[7] == f"{parts[1]} row 1"


def test_arrays_can_be_named(tmp_path):
    path = save(tmp_path, pictures=COLOUR, kinds=LABELS, images=COLOUR[:2])
    assert len(read_image_dataset(path, images="pictures", labels="kinds")) == 6
    with pytest.raises(DataError, match="lacks labels; it holds pictures, kinds, images. Name what is there: --im"):
        read_image_dataset(path)
    with pytest.raises(DataError, match="lacks marks; it holds"):
        read_image_dataset(path, images="pictures", labels="marks")


def test_an_image_that_is_no_number_is_left_out(tmp_path):
    images = GREY / 255
    images[3, 0, 0] = np.nan
    dataset = read_image_dataset(save(tmp_path, images=images, labels=LABELS))
    assert len(dataset) == 5 and dataset.left_out == (LeftOut("row 3", "1 pixel of it NaN or infinite"),)


def test_the_range_of_values_is_part_of_what_an_image_is(tmp_path):
    """The same numbers in another range look different: features of the one are not those of the other."""
    first = read_image_dataset(save(tmp_path, images=GREY[:4] / 255, labels=LABELS[:4]))
    images = np.concatenate([GREY[:4] / 255, GREY[:2] * 1.0])
    second = read_image_dataset(save(tmp_path, images=images, labels=LABELS))
    assert not set(first.digests) & set(second.digests)
    assert pixels_of(first).max() > pixels_of(second).max()


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": GREY[0]}, "images are (5, 7)."),
        ({"images": np.zeros((6, 20, 16, 2))}, "no dimension is of 1, 3 or 4 channels"),
        ({"images": np.zeros((6, 0, 16))}, "images are (6, 0, 16)."),
        ({"images": GREY.astype("S1")}, "images are |S1."),
        ({"labels": LABELS[:5]}, "labels are (5,), but there are 6 images."),
        ({"labels": LABELS / 2 + 0.1}, "labels are float64."),
        ({"labels": LABELS.astype(object)}, "holds an array of Python objects, which is never unpickled."),
        ({"labels": np.zeros(6, int)}, "at least 2 classes with at least 2 images each are needed; there are 0 6."),
        ({"labels": np.arange(6)}, "there are 0 1, 1 1, 2 1, 3 1, 4 1, 5 1. Add images to the classes."),
        ({"images": np.zeros((0, 5, 7)), "labels": np.zeros(0, int)}, "there are none."),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, arrays, text):
    with pytest.raises(DataError, match=re.escape(text)):
        read_image_dataset(save(tmp_path, **({"images": GREY, "labels": LABELS} | arrays)))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("my.npz", b"no zip", "is no .npz file, or is damaged."),
        ("my.zip", b"PK", "is an archive, which is not read: unpack it"),
        ("my.pkl", b"", "is a pickle, which is never read"),
        ("my.npy", b"", "is one array, without labels"),
        ("my.xyz", b"", "files with the suffix .xyz are not read"),
        ("my.xlsx", b"PK", "is a spreadsheet, which is not read: save it as CSV, beside the images."),
        ("my.jpg", b"", "is one image; a dataset is needed."),
        ("my", b"", "files with the suffix (none) are not read"),
    ],
)
def test_foreign_files_are_refused(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(text)):
        read_image_dataset(tmp_path / name)
    with pytest.raises(DataError, match=r"there is no file or folder .*nowhere\.csv\.$"):
        read_image_dataset(tmp_path / "nowhere.csv")


def test_a_name_that_is_nearly_right_is_told(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"there is no file or folder .*/photo\. Did you mean .*/photos\?$"):
        read_image_dataset(tmp_path / "photo")


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_have_the_parts_of_mnist(tmp_path):
    for part, images in (("train", GREY), ("t10k", GREY + 100)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8)))
    dataset = read_image_dataset(tmp_path)
    assert dataset.parts.tolist() == ["test"] * 6 + ["train"] * 6 and dataset.class_names == ("4", "9")
    assert (pixels_of(dataset, 1)[..., 0] == GREY[1] + 100).all() and (pixels_of(dataset, 8)[..., 2] == GREY[2]).all()
