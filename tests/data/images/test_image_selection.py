"""Which images make the dataset: drawn by class, copies told, 16-bit white."""

import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import coloured, make_folder
from PIL import Image

from data.data_error import DataError
from data.images.found_images import FoundImages
from data.images.image_dataset import LeftOut, read_image_dataset
from data.images.image_selection import draw_images
from data.images.image_sources import FileImages


def found(counts: dict[str, int]) -> FoundImages:
    keys = [f"{name}/{number}" for name, count in counts.items() for number in range(count)]
    return FoundImages(keys, [key.partition("/")[0] for key in keys], list(counts), FileImages(keys))


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(4, 120), st.integers(0, 5))
def test_images_are_drawn_in_proportion(sizes, most, seed):
    counts = {f"c{number}": size for number, size in enumerate(sizes)}
    rows = draw_images(found(counts), most, seed)
    least = sum(min(size, 2) for size in sizes)
    assert len(rows) == min(sum(sizes), max(most, least)) and (np.diff(rows) > 0).all()
    drawn = Counter(found(counts).classes[row] for row in rows)
    share = len(rows) / max(1, sum(sizes))
    for name, size in counts.items():
        assert min(size, 2) <= drawn[name] <= size
        if len(rows) > least:
            rest = (len(rows) - least) / max(1, sum(sizes) - least)
            assert abs(drawn[name] - (min(size, 2) + rest * (size - min(size, 2)))) < 1
    assert share <= 1 and (rows == draw_images(found(counts), most, seed)).all()


def test_drawing_is_told_and_more_images_keep_the_first(tmp_path):
    make_folder(tmp_path, {"cat": 30, "dog": 10})
    few, more = (read_image_dataset(tmp_path, max_images=most) for most in (12, 24))
    assert few.labels.tolist() == [0] * 8 + [1] * 4 and set(few.keys) < set(more.keys)
    assert few.notes == ("12 of 40 images were drawn, of each class in proportion (seed 0)",)
    assert set(read_image_dataset(tmp_path, max_images=12, seed=1).keys) != set(few.keys)
    assert read_image_dataset(tmp_path, max_images=40).notes == ()
    with pytest.raises(DataError, match="max_images is 3; at least 4 are needed"):
        read_image_dataset(tmp_path, max_images=3)


def test_two_of_each_class_are_drawn_at_least(tmp_path):
    make_folder(tmp_path, {"cat": 100, "cow": 5, "dog": 5})
    assert Counter(read_image_dataset(tmp_path, max_images=4).labels.tolist()) == {0: 2, 1: 2, 2: 2}


def test_an_image_of_train_is_left_out_of_test(tmp_path):
    make_folder(tmp_path, {f"{part}/{name}": 3 for part in ("train", "val", "test") for name in ("cat", "dog")})
    shutil.copy(tmp_path / "train" / "cat" / "1.png", tmp_path / "test" / "cat" / "again.png")
    shutil.copy(tmp_path / "train" / "cat" / "2.png", tmp_path / "test" / "dog" / "other_class.png")
    shutil.copy(tmp_path / "train" / "dog" / "0.png", tmp_path / "val" / "dog" / "0.png")
    shutil.copy(tmp_path / "val" / "dog" / "1.png", tmp_path / "test" / "dog" / "1.png")
    dataset = read_image_dataset(tmp_path)
    assert set(dataset.left_out) == {
        LeftOut("test/cat/again.png", "the same image as train/cat/1.png"),
        LeftOut("test/dog/other_class.png", "the same image as train/cat/2.png"),
        LeftOut("val/dog/0.png", "the same image as train/dog/0.png"),
        LeftOut("test/dog/1.png", "the same image as val/dog/1.png"),
    }
    assert Counter(dataset.parts.tolist()) == {"train": 6, "val": 5, "test": 5} and len(set(dataset.digests)) == 16
    assert dataset.notes == (
        "2 images of test are in train too, byte for byte, and left out of test: test/cat/again.png is train/cat/1.png",
        "1 image of val is in train too, byte for byte, and left out of val: val/dog/0.png is train/dog/0.png",
        "1 image of test is in val too, byte for byte, and left out of test: test/dog/1.png is val/dog/1.png",
    )


def test_copies_inside_of_a_part_are_told_and_stay(tmp_path):
    make_folder(tmp_path, {"cat": 3, "dog": 3})
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / "copy.png")
    shutil.copy(tmp_path / "cat" / "1.png", tmp_path / "dog" / "a_cat.png")
    dataset = read_image_dataset(tmp_path)
    assert len(dataset) == 8 and dataset.left_out == ()
    assert dataset.notes == (
        "1 image is in two classes or more, byte for byte: cat/1.png (cat) is dog/a_cat.png (dog); one label must be "
        "wrong",
        "1 image is a copy of another of the class, byte for byte: cat/copy.png is cat/0.png",
    )
    groups = dict(zip(dataset.keys, dataset.groups.tolist(), strict=True))
    assert groups["cat/0.png"] == groups["cat/copy.png"] and groups["cat/1.png"] == groups["dog/a_cat.png"]
    assert len(set(groups.values())) == 6 and dataset.groups.tolist() == [0, 1, 2, 0, 3, 4, 5, 1]


def test_a_class_whose_images_are_all_copies_of_train_is_no_class_of_its_own(tmp_path):
    make_folder(tmp_path, {"train/cat": 2, "train/dog": 2, "train/cow": 1, "test/cow": 0})
    shutil.copy(tmp_path / "train" / "cow" / "0.png", tmp_path / "test" / "cow" / "0.png")
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.notes[0] == "class cow has 1 image, and is left out"


@pytest.mark.parametrize(
    ("highest", "white", "note"),
    [
        (65535, 65535, False),
        (20000, 65535, False),
        (4000, 4095, True),
        (900, 1023, True),
    ],
)
def test_images_of_fewer_than_16_bits_are_scaled_alike(tmp_path, highest, white, note):
    for row, level in enumerate((0, highest // 4, highest // 2, highest)):
        folder = tmp_path / "ab"[row % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), level, np.uint16)).save(folder / f"{row}.png")
    coloured(9).save(tmp_path / "a" / "8bit.png")
    dataset = read_image_dataset(tmp_path)
    assert dataset.keys == ("a/0.png", "a/2.png", "a/8bit.png", "b/1.png", "b/3.png")
    levels = [dataset.image(row).getpixel((0, 0))[0] for row in (0, 1, 3, 4)]
    assert levels == [round(255 * level / white) for level in (0, highest // 2, highest // 4, highest)]
    assert dataset.image(2).getpixel((0, 0)) == (9, 0, 77)
    told = (f"levels of 16-bit images end at {highest:,}: {white:,} is taken as white",) if note else ()
    assert dataset.notes == told
