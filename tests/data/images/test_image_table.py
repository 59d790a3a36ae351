"""Tables of images: which columns are meant, which file, and what is left out."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from image_samples import coloured, encoded

from data.data_error import DataError
from data.images import image_table
from data.images.image_dataset import LeftOut, read_image_dataset


def make_files(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coloured(number).save(folder / name)
    return folder


FOUR = ["images/a.png", "images/b.png", "images/c.png", "images/d.png"]


@pytest.mark.parametrize(
    "table",
    [
        "image,label\nimages/a.png,cat\nimages/b.png,dog\nimages/c.png,cat\nimages/d.png,dog\n",
        "label;file\ncat;a.png\ndog;b.png\ncat;c.png\ndog;d.png\n",
        "id,breed\na,cat\nb,dog\nc,cat\nd,dog\n",
        "images/a.png,cat\nimages/b.png,dog\nimages/c.png,cat\nimages/d.png,dog\n",
        ",path,class\n0,images\\a.png,cat\n1,images\\b.png,dog\n2,images\\c.png, cat \n3,./images/d.png,dog\n",
        "\ufefffilename,width,category\n/old/images/a.png,8,cat\n/old/images/b.png,8,dog\n"
        "/old/images/c.png,8,cat\n/old/images/d.png,8,dog\n",
    ],
    ids=["plain", "names in any folder", "no suffix", "no header", "backslashes", "other places"],
)
def test_columns_and_files_are_found(tmp_path, table):
    make_files(tmp_path, FOUR)
    (tmp_path / "my.csv").write_text(table)
    dataset = read_image_dataset(tmp_path / "my.csv")
    assert dataset.name == "my" and dataset.class_names == ("cat", "dog") and dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.keys == tuple(FOUR) and dataset.left_out == ()
    assert [dataset.image(row).getpixel((0, 0))[0] for row in range(4)] == [0, 1, 2, 3]
    assert read_image_dataset(tmp_path).keys == dataset.keys  # the folder has no classes, but one table


def test_columns_can_be_named(tmp_path):
    make_files(tmp_path, FOUR)
    rows = "".join(f"x.png,{name},{size},{kind}\n" for name, size, kind in zip(FOUR, "1212", "aabb", strict=True))
    (tmp_path / "my.csv").write_text(f"cover,photo,size,kind\n{rows}")
    assert read_image_dataset(tmp_path / "my.csv", labels="kind").labels.tolist() == [0, 0, 1, 1]
    assert read_image_dataset(tmp_path, labels="size", images="photo").labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match=r"cover \(1 value\), size \(2 values\), kind \(2 values\)\. Name it: --labels"):
        read_image_dataset(tmp_path / "my.csv")
    with pytest.raises(DataError, match="has no column knd for the labels; it has .*Did you mean kind"):
        read_image_dataset(tmp_path / "my.csv", labels="knd")
    with pytest.raises(DataError, match="column cover names 4 files, such as x.png, but none is in"):
        read_image_dataset(tmp_path / "my.csv", labels="kind", images="cover")


def test_rows_that_cant_be_used_are_left_out(tmp_path):
    make_files(tmp_path, [*FOUR, "more/a.png"])
    rows = ["images/a.png,1", "b.png,2", "images/c.png,1", "images/d.png,2", "c.png,1", "a.png,2", "e.png,1", ",1"]
    rows += ["b.png,", "http://x.org/y.png,2", "d.png"]
    (tmp_path / "my.csv").write_text("image,label\n" + "\n".join(rows))
    dataset = read_image_dataset(tmp_path / "my.csv")
    assert dataset.keys == tuple(FOUR)
    assert {left.key: left.reason for left in dataset.left_out} == {
        "a.png": "2 files have that name", "e.png": "there is no such file", "line 9": "no image",
        "b.png": "no label", "http://x.org/y.png": "an address: download it, and name the file",
        "line 12": "bad CSV (1 cells, but the header names 2 columns)",
    }  # fmt: skip
    assert dataset.notes == (
        "images are those of the column image, classes of label",
        "1 row that repeats another passed over",
    )


def test_the_folder_tells_which_of_two_files_is_meant(tmp_path):
    make_files(tmp_path, ["cat/1.png", "dog/1.png", "cat/2.png", "dog/2.png"])
    (tmp_path / "my.csv").write_text("image,label\n1.png,dog\n1.png,cat\n2.png,cat\n2.png,dog\n")
    assert read_image_dataset(tmp_path / "my.csv").keys == ("dog/1.png", "cat/1.png", "cat/2.png", "dog/2.png")


def test_a_column_for_each_class(tmp_path):
    make_files(tmp_path, FOUR)
    (tmp_path / "my.csv").write_text("image,MEL,NV,BCC\na,1.0,0.0,0\nb,0.0,1.0,0\nc,1.0,0.0,0\nd,0.0,1.0,0\n")
    dataset = read_image_dataset(tmp_path / "my.csv")
    assert dataset.class_names == ("MEL", "NV") and dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.notes == ("images are those of the column image, classes of the columns of 0 and 1 (MEL, NV, BCC)",)


def test_a_table_is_of_the_folder_that_is_called_so(tmp_path):
    make_files(tmp_path, [f"{part}/{number}.png" for part in ("test", "train") for number in range(4)])
    (tmp_path / "train.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    (tmp_path / "sample_submission.csv").write_text("id,label\n0,a\n1,a\n")
    assert read_image_dataset(tmp_path).keys == tuple(f"train/{number}.png" for number in range(4))


def test_a_table_of_another_encoding(tmp_path):
    make_files(tmp_path, FOUR)
    (tmp_path / "my.csv").write_bytes("image,label\na.png,\xe4\nb.png,b\nc.png,c\nd.png,b\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"such as line 2: wrong encoding: not UTF-8 \(byte 0xE4\); save the table as UTF-8"
    ):
        read_image_dataset(tmp_path / "my.csv")


def test_parts_of_a_table(tmp_path):
    make_files(tmp_path, [*FOUR, "images/e.png", "images/f.png"])
    rows = "".join(f"{name}.png,{part},{kind}\n" for name, part, kind in zip("abcdef", ["train"] * 4 + ["Test"] * 2,
                                                                           "xyxyxy", strict=True))  # fmt: skip
    (tmp_path / "my.csv").write_text(f"image,split,kind\n{rows}")
    assert read_image_dataset(tmp_path / "my.csv").parts.tolist() == ["train"] * 4 + ["test"] * 2


def test_numbers_as_classes(tmp_path):
    make_files(tmp_path, FOUR)
    (tmp_path / "my.csv").write_text("image,label\na.png,10\nb.png,9\nc.png,10\nd.png,9.0\n")
    assert read_image_dataset(tmp_path / "my.csv").class_names == ("9", "10")
    (tmp_path / "my.csv").write_text("image,price\na.png,1.5\nb.png,9\nc.png,10\nd.png,9\n")
    with pytest.raises(
        DataError, match=r"price holds 3 different numbers with fractions, such as .*classes are needed"
    ):
        read_image_dataset(tmp_path / "my.csv")


def test_json_lines_inside_of_the_folder_of_images(tmp_path):
    make_files(tmp_path, FOUR)
    rows = [{"file_name": f"{name}.png", "label": kind} for name, kind in zip("abcd", (0, 1, 0, 1), strict=True)]
    (tmp_path / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("0", "1") and dataset.keys == ("a.png", "b.png", "c.png", "d.png")
    assert dataset.notes[0] == f"the table images/metadata.jsonl in {tmp_path} is read"


@pytest.mark.parametrize("inside", [False, True])
def test_a_table_for_each_part(tmp_path, inside):
    make_files(tmp_path, [f"{part}/{number}.png" for part in ("train", "test") for number in range(4)])
    for part, rows in (("train", "10,9,10,9"), ("test", "9,10")):
        lines = [f"{number}.png,{label}" for number, label in enumerate(rows.split(","))]
        place = f"{part}/metadata.csv" if inside else f"{part}.csv"
        (tmp_path / place).write_text("\n".join(["file_name,label", *lines]))
    dataset = read_image_dataset(tmp_path)
    assert dataset.class_names == ("9", "10") and dataset.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert dataset.parts.tolist() == ["train"] * 4 + ["test"] * 2
    assert dataset.keys == (*tuple(f"train/{number}.png" for number in range(4)), "test/0.png", "test/1.png")
    assert [dataset.image(row).getpixel((0, 0))[0] for row in range(6)] == [0, 1, 2, 3, 4, 5]


def test_a_test_table_without_labels_is_passed_over(tmp_path):
    make_files(tmp_path, [f"{part}/{number}.png" for part in ("train", "test") for number in range(4)])
    (tmp_path / "train.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    (tmp_path / "test.csv").write_text("id\n0\n1\n")
    dataset = read_image_dataset(tmp_path)
    assert len(dataset) == 4 and dataset.parts is None
    assert "the table test.csv is passed over: " in dataset.notes[-1] and "no column of labels" in dataset.notes[-1]


def test_several_tables_are_refused(tmp_path):
    make_files(tmp_path, FOUR)
    for name in ("first.csv", "second.csv"):
        (tmp_path / name).write_text("image,label\na.png,1\n")
    (tmp_path / "sizes.csv").write_text("width,height\n1,2\n")
    with pytest.raises(DataError, match=r"several tables of images: first\.csv, second\.csv\. Name the one"):
        read_image_dataset(tmp_path)
    (tmp_path / "labels.csv").write_text("image,label\na.png,1\nb.png,1\nc.png,2\nd.png,2\n")
    assert len(read_image_dataset(tmp_path)) == 4


pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
NAMES = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["zebra", "ant", "bee"],
                                                                      "_type": "ClassLabel"}}}}  # fmt: skip


def write_parquet(path, labels, first=0, kind="struct", names=True):
    """Write a file as `datasets` does: an image of a colour of its own for each label."""
    files = [encoded(coloured(first + number), "PNG") for number in range(len(labels))]
    images = files if kind == "binary" else [{"bytes": content, "path": "x.png"} for content in files]
    table = pyarrow.table({"label": pyarrow.array(labels), "image": pyarrow.array(images)})
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps(NAMES)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=3)


def test_parquet_as_hugging_face_writes_it(tmp_path):
    write_parquet(tmp_path / "my.parquet", [1, 0, 1, 0, -1, None, 0])
    dataset = read_image_dataset(tmp_path / "my.parquet")
    assert dataset.class_names == ("zebra", "ant") and dataset.labels.tolist() == [1, 0, 1, 0, 0]
    assert dataset.keys == ("row 0", "row 1", "row 2", "row 3", "row 6")
    assert [dataset.image(row).getpixel((0, 0))[0] for row in range(5)] == [0, 1, 2, 3, 6]
    assert dataset.left_out == (LeftOut("row 4", "no label"), LeftOut("row 5", "no label"))


def test_parquet_with_plain_bytes_and_words(tmp_path):
    write_parquet(tmp_path / "my.parquet", ["ant", "bee", "ant", "bee"], kind="binary", names=False)
    dataset = read_image_dataset(tmp_path / "my.parquet")
    assert dataset.class_names == ("ant", "bee") and dataset.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match="column label is string; needed are the bytes of image files"):
        read_image_dataset(tmp_path / "my.parquet", images="label")


def test_a_folder_of_parquet_files_in_parts(tmp_path, monkeypatch):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 0, 1])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [0, 1, 0, 1], first=4)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 1], first=8)
    whole = read_image_dataset(tmp_path)
    assert whole.parts.tolist() == ["test"] * 2 + ["train"] * 8 and len(set(whole.digests)) == 10
    assert [whole.image(row).getpixel((0, 0))[0] for row in range(10)] == [8, 9, 0, 1, 2, 3, 4, 5, 6, 7]
    some = read_image_dataset(tmp_path, max_images=6)
    assert len(some) == 6 and set(some.digests) < set(whole.digests)
    monkeypatch.setattr(image_table, "_IN_MEMORY", 100)  # as if the images were many: they go into a file
    spilt = pickle.loads(pickle.dumps(read_image_dataset(tmp_path)))
    assert isinstance(spilt.source.buffer, np.memmap) and spilt.digests == whole.digests
    assert [spilt.image(row).getpixel((0, 0))[0] for row in range(10)] == [8, 9, 0, 1, 2, 3, 4, 5, 6, 7]


def test_broken_images_and_files_of_a_parquet(tmp_path):
    images = [encoded(coloured(number), "PNG") for number in range(4)] + [b"", b"hello", None]
    table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "y": pyarrow.array([0, 1, 0, 1, 0, 1, 0])})
    parquet.write_table(table, tmp_path / "my.parquet")
    dataset = read_image_dataset(tmp_path / "my.parquet")
    assert len(dataset) == 4 and [left.key for left in dataset.left_out] == ["row 4", "row 5", "row 6"]
    (tmp_path / "my.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"my\.parquet can't be read"):
        read_image_dataset(tmp_path / "my.parquet")
    parquet.write_table(pyarrow.table({"a": [1], "b": [2.0]}), tmp_path / "my.parquet")
    with pytest.raises(DataError, match=r"which column names the images can't be found out; it has a, b"):
        read_image_dataset(tmp_path / "my.parquet")


def test_parquet_that_names_files(tmp_path):
    make_files(tmp_path, FOUR)
    parquet.write_table(pyarrow.table({"path": FOUR, "label": ["a", "b", "a", "b"]}), tmp_path / "my.parquet")
    assert read_image_dataset(tmp_path / "my.parquet").keys == tuple(FOUR)


def test_a_table_without_rows_is_refused(tmp_path):
    (tmp_path / "my.csv").write_text("")
    with pytest.raises(DataError, match=r"my\.csv has no rows"):
        read_image_dataset(tmp_path / "my.csv")
    (tmp_path / "my.csv").write_text("image,label\n")
    with pytest.raises(DataError):
        read_image_dataset(tmp_path / "my.csv")
