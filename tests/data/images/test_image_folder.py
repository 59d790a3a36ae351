"""Folders of class folders: which layouts are read, and what is said of the rest."""

import os

import pytest
from image_samples import coloured, encoded, make_folder

from data.data_error import DataError
from data.images.image_dataset import LeftOut, read_image_dataset
from data.images.image_folder import part_named


def test_images_in_folders_below_a_class_are_of_the_class(tmp_path):
    make_folder(tmp_path, {"cat/2021/may": 2, "cat/2022": 1, "dog": 2})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.keys[0] == "cat/2021/may/0.png"
    assert dataset.notes == ("images in folders below a class are of that class: those of cat/2021/ are of cat",)


def test_a_folder_that_holds_only_the_folder_of_classes_is_passed_through(tmp_path):
    make_folder(tmp_path, {"photos/all/cat": 2, "photos/all/dog": 2})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.keys[0] == "photos/all/cat/0.png"
    assert dataset.notes == ("the classes are the folders inside photos/all/",)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"), ("Training", "valid", "Testing"), ("train", "dev", "eval"),
        ("seg_train", "val2017", "test set"), ("training_set/training_set", "validation/images", "test_data"),
    ],
)  # fmt: skip
def test_parts_are_found(tmp_path, train, val, test):
    make_folder(tmp_path, {f"{part}/{name}": 2 for part in (train, val, test) for name in ("cat", "dog")})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and len(dataset) == 12
    for key, part in zip(dataset.keys, dataset.parts, strict=True):
        assert part == next(name for name, folder in (("train", train), ("val", val), ("test", test))
                            if key.startswith(folder))  # fmt: skip
    assert dataset.left_out == dataset.notes == ()


def test_parts_inside_of_classes_are_found(tmp_path):
    make_folder(tmp_path, {f"{name}/{part}": 2 for part in ("train", "test") for name in ("cat", "dog")})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.notes == ()
    assert all(key.split("/")[1] == part for key, part in zip(dataset.keys, dataset.parts, strict=True))


def test_parts_without_one_to_train_on_are_taken_together(tmp_path):
    make_folder(tmp_path, {f"{part}/{name}": 2 for part in ("val", "test") for name in ("cat", "dog")})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and len(dataset) == 8 and dataset.parts is None
    assert dataset.notes == ("there is no train/: images of test/ and val/ are taken together",)


@pytest.mark.parametrize("name", ["test_tube", "pretest", "contest", "tests of tea", "set", "12"])
def test_names_that_are_no_parts(name):
    assert part_named(name) is None


def test_parts_inside_of_a_folder_are_found(tmp_path):
    make_folder(tmp_path, {f"data/{part}/{name}": 2 for part in ("train", "test") for name in ("cat", "dog")})
    assert sorted(set(read_image_dataset(tmp_path).parts)) == ["test", "train"]


def test_a_class_may_be_called_train(tmp_path):
    dataset = read_image_dataset(make_folder(tmp_path, {"bus": 2, "car": 2, "train": 2}))
    assert dataset.class_names == ("bus", "car", "train") and dataset.parts is None
    make_folder(tmp_path / "deep", {"bus/a": 2, "car/a": 2, "train/a": 2})
    dataset = read_image_dataset(tmp_path / "deep")
    assert dataset.class_names == ("bus", "car", "train") and dataset.parts is None


def test_test_images_without_classes_are_left_out(tmp_path):
    make_folder(tmp_path, {"train/cat": 2, "train/dog": 2, "test": 1})
    dataset = read_image_dataset(tmp_path)
    assert len(dataset) == 4 and dataset.left_out == (LeftOut("test/0.png", "in no class folder"),)


def test_a_class_of_test_that_train_lacks_is_left_out(tmp_path):
    make_folder(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 2, "test/cow": 2})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and len(dataset) == 6
    assert dataset.notes == ("class cow has no image in train, and is left out",)


def test_classes_with_too_few_images_are_left_out(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2, "cow": 1})
    (tmp_path / "empty").mkdir()
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.notes == (
        "class cow has 1 image, and is left out",
        "class empty has no image, and is left out",
    )


def test_many_small_classes_are_told_in_one_line(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2} | {f"x{number:02}": 1 for number in range(30)})
    notes = read_image_dataset(tmp_path).notes
    assert len(notes) == 6 and notes[0] == "class x00 has 1 image, and is left out"
    assert notes[5].startswith("25 more classes with too few images left out: x05, x06,") and notes[5].endswith(", ...")


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, "has no images"),
        ({"cat": 3}, r"there are cat 3\. Add a folder, or label, for a second class"),
        ({"cat": 1, "dog": 1, "cow": 1}, r"there are cat 1, cow 1, dog 1\. Add images to the classes"),
        ({"cat": 3, "dog": 1}, r"there are cat 3, dog 1\."),
        ({".": 3}, "has 3 images, but no folder for each class"),
        ({"train": 3, "test": 3}, "has 6 images, but no folder for each class"),
    ],
)
def test_too_little_is_refused(tmp_path, counts, text):
    for name, count in counts.items():
        (tmp_path / name).mkdir(exist_ok=True)
        for number in range(count):
            coloured(number).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match=text) as raised:
        read_image_dataset(tmp_path)
    if len(counts) < 2 or "train" in counts:
        assert "photos/cat/1.jpg" in str(raised.value)  # the layouts that are read


def test_hidden_and_other_files_are_passed_over_and_foreign_images_named(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2, ".git": 1, "__MACOSX/cat": 1})
    for name in (".hidden.png", "._0.png"):
        coloured(99).save(tmp_path / "cat" / name)
    (tmp_path / "cat" / "a.txt").write_text("")
    (tmp_path / "cat" / "Thumbs.db").write_text("")
    (tmp_path / "dog" / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "dog" / "c.psd").write_bytes(b"8BPS")
    dataset = read_image_dataset(tmp_path)
    assert len(dataset) == 4
    assert dataset.notes == ("2 files of other kinds passed over (1 .db, 1 .txt)",)
    left_out = {left.key: left.reason for left in dataset.left_out}
    assert left_out.keys() == {"dog/b.HEIC", "dog/c.psd"}
    assert "pip install pillow-heif" in left_out["dog/b.HEIC"] and "save it as PNG" in left_out["dog/c.psd"]


def test_suffixes_in_capitals_wrong_ones_and_none(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    for name, kind in (("A.JPG", "JPEG"), ("b.png", "JPEG"), ("c.jpeg", "PNG"), ("d", "PNG"), ("e.TiFF", "TIFF")):
        (tmp_path / "cat" / name).write_bytes(encoded(coloured(200 + ord(name[0])), kind))
    (tmp_path / "cat" / "README").write_text("of a class")
    dataset = read_image_dataset(tmp_path)
    assert [key for key in dataset.keys if key.startswith("cat")] == [
        "cat/0.png", "cat/1.png", "cat/A.JPG", "cat/b.png", "cat/c.jpeg", "cat/d", "cat/e.TiFF",
    ]  # fmt: skip
    assert dataset.left_out == () and dataset.notes == ("1 file of other kinds passed over (1 without suffix)",)


def test_names_of_any_script_and_of_no_encoding(tmp_path):
    make_folder(tmp_path, {"кошка": 2, "狗 🐶": 2})
    strange = os.path.join(os.fsencode(tmp_path / "кошка"), b"caf\xe9.png")
    with open(strange, "wb") as file:
        file.write(encoded(coloured(99), "PNG"))
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("кошка", "狗 🐶") and dataset.keys[2] == "кошка/caf�.png"
    assert dataset.image(2).getpixel((0, 0)) == (99, 0, 77)
    "".join(dataset.keys).encode()  # can be printed


def test_classes_that_are_written_in_two_ways(tmp_path):
    make_folder(tmp_path, {"train/caf\u00e9": 2, "train/tea": 2, "test/cafe\u0301": 2, "train/Tea": 2})
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("Tea", "caf\u00e9", "tea") and dataset.labels.tolist() == [1, 1, 0, 0, 1, 1, 2, 2]
    assert dataset.notes == ("classes 'Tea' and 'tea' differ only in how they are written: are they one?",)


def test_links_are_followed_but_not_in_circles(tmp_path):
    make_folder(tmp_path / "elsewhere", {"dogs": 2})
    folder = make_folder(tmp_path / "pets", {"cat": 2})
    (folder / "dog").symlink_to(tmp_path / "elsewhere" / "dogs")
    (folder / "cat" / "round").symlink_to(folder)
    (folder / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    dataset = read_image_dataset(folder)
    assert dataset.keys == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert dataset.left_out == (LeftOut("cat/gone.jpg", "a link to what is not there"),)


def test_a_pipe_called_as_an_image_is_not_waited_for(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    assert len(read_image_dataset(tmp_path)) == 4


def test_images_beside_the_class_folders_are_left_out(tmp_path):
    make_folder(tmp_path, {"cat": 2, "dog": 2})
    coloured(9).save(tmp_path / "cover.png")
    assert read_image_dataset(tmp_path).left_out == (LeftOut("cover.png", "in no class folder"),)
