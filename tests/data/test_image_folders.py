"""Readers of IDX folders and image folders: what they return, and what they say of damaged files."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from data.data_error import DataError
from data.image_folders import read_idx, read_images


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1], np.uint8)


def write_pair(folder, images=IMAGES, labels=LABELS, part="train"):
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def test_idx_folder_joins_its_parts_packed_or_not(tmp_path):
    write_pair(tmp_path, part="train")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES + 100))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    images, labels, names = read_images(tmp_path)
    assert np.array_equal(images, np.concatenate([IMAGES + 100, IMAGES]))
    assert labels.tolist() == [2, 0, 1, 2, 0, 1] and names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no IDX file of unsigned bytes"),
        (b"\x89PNG....", "no IDX file of unsigned bytes: it begins with 89504e47"),
        (b"\0\0\x0d\x01" + bytes(8), "no IDX file of unsigned bytes"),
        (idx(IMAGES)[:10], "ends within its header"),
        (idx(IMAGES)[:-1], "has 75 bytes, its header .* asks for 76"),
        (idx(IMAGES) + b"x", "has 77 bytes"),
    ],
)
def test_damaged_idx_file_is_refused(tmp_path, content, text):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_idx(path)


def test_cut_gzip_and_missing_label_file_are_refused(tmp_path):
    write_pair(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cannot read .*train-labels"):
        read_images(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match=r"cannot read .*train-labels"):
        read_images(tmp_path)


def test_labels_that_do_not_match_images_are_refused(tmp_path):
    write_pair(tmp_path, labels=LABELS[:2])
    with pytest.raises(DataError, match=r"images \(3, 4, 5\), its label file labels \(2,\)"):
        read_images(tmp_path)


def test_image_folder_gives_grey_images_with_folder_names_as_classes(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 30), (100 * number,) * 3).save(tmp_path / name / "one.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images, labels, names = read_images(tmp_path, size=12)
    assert images.shape == (2, 12, 12) and images.dtype == np.uint8
    assert images[1].min() == images[1].max() == 100
    assert labels.tolist() == [0, 1] and names == ["cat", "dog"]


def test_image_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no images; needed: one sub-folder a class"):
        read_images(tmp_path)
    (tmp_path / "cat").mkdir()
    Image.new("L", (20, 30)).save(tmp_path / "cat" / "a.png")
    Image.new("L", (20, 31)).save(tmp_path / "cat" / "b.png")
    with pytest.raises(DataError, match=r"b\.png is \(31, 20\), images before it \(30, 20\)"):
        read_images(tmp_path)
    (tmp_path / "cat" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"cannot read image .*b\.png"):
        read_images(tmp_path, size=12)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "png"), ("RGB", "png"), ("RGB", "jpg"), ("L", "jpg"), ("P", "gif"), ("1", "png"), ("CMYK", "jpg")],
)
def test_grey_levels_are_those_of_pillow(tmp_path, mode, kind):
    """The laboratory's figures were made of such: what opens a user's image may not change them."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 41, 3), np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).convert(mode).save(tmp_path / "cat" / f"1.{kind}")
    with Image.open(tmp_path / "cat" / f"1.{kind}") as opened:
        grey = opened.convert("L")
    assert np.array_equal(read_images(tmp_path)[0][0], np.asarray(grey))
    small = np.asarray(grey.resize((12, 12), Image.Resampling.BOX))
    assert np.array_equal(read_images(tmp_path, 12)[0][0], small)


def test_images_are_upright_and_over_white(tmp_path):
    (tmp_path / "cat").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "cat" / "turned.png", exif=exif.tobytes())
    assert read_images(tmp_path)[0].shape == (1, 40, 20)
    Image.new("RGBA", (20, 40), (0, 0, 0, 51)).save(tmp_path / "cat" / "clear.png")
    assert read_images(tmp_path)[0][0].max() == read_images(tmp_path)[0][0].min() == 204
