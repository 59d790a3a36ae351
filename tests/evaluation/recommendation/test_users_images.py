"""`python recommend.py` on images as people have them: of all kinds, in all layouts, broken ones among them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_python import run_python
from zoo_samples import write_photos, write_zoo

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("zoo"), {"name": "fine", "arguments": {"cells": 8}})


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", images=8)


def ask(zoo: Path, *words: object) -> dict:
    done = run_python([ROOT / "recommend.py", *map(str, words), "--zoo", zoo, "--json", "--artifacts",
                       zoo.parent / "artifacts"], ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(zoo: Path, *words: object) -> str:
    done = run_python([ROOT / "recommend.py", *map(str, words), "--zoo", zoo, "--artifacts",
                       zoo.parent / "artifacts"], ROOT)  # fmt: skip
    assert done.returncode == 3 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_images_of_all_kinds_are_looked_at_and_broken_ones_named(zoo, photos):
    """The same pictures in other formats are seen alike: the models' answer is the same, image by image."""
    left = photos / "left"
    with Image.open(left / "000.png") as opened:
        image = opened.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(left / "turned.PNG", exif=exif.tobytes())
    image.convert("L").save(left / "grey.bmp")
    image.convert("CMYK").save(left / "cmyk.tif")
    image.convert("RGBA").save(left / "alpha.webp", lossless=True)
    image.quantize(64).save(left / "palette.gif")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(left / "16 bits.png")
    image.save(left / "photo called png.png", "JPEG")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    (left / "cut.jpg").write_bytes(buffer.getvalue()[:700])
    (left / "empty.jpg").touch()
    (left / "words.jpg").write_text("no picture")
    (left / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (left / ".hidden.jpg").write_text("no picture")
    shutil.copy(photos / "right" / "003.png", left / "a right one.png")
    (photos / "nothing").mkdir()
    found = ask(zoo, photos)
    assert found["dataset"]["images"] == 24 + 7 + 1 and found["dataset"]["classes"] == 3
    reasons = {each["key"]: each["reason"] for each in found["dataset"]["left_out"]}
    assert reasons.keys() == {"left/cut.jpg", "left/empty.jpg", "left/words.jpg", "left/phone.heic"}
    assert reasons["left/cut.jpg"].startswith("cut short") and reasons["left/words.jpg"] == "text, no image"
    assert reasons["left/empty.jpg"] == "an empty file (0 bytes)" and "pillow-heif" in reasons["left/phone.heic"]
    notes = "\n".join(found["notes"] + found["dataset"].get("notes", []))
    assert "class nothing has no image, and is left out" in notes
    assert "left/a right one.png (left) is right/003.png (right); one label must be wrong" in notes


def test_layouts_of_the_same_images_give_the_same_answer(zoo, photos, tmp_path):
    files = sorted(photos.rglob("*.png"))
    plain = ask(zoo, photos)
    table = tmp_path / "table.csv"
    table.write_text("file,taken,place\n" + "".join(f"{each.relative_to(tmp_path)},{number},{each.parent.name}\n"
                                                   for number, each in enumerate(files)))  # fmt: skip
    of_table = ask(zoo, table, "--labels", "place", "--images", "file")
    pixels = np.stack([np.asarray(Image.open(each).convert("RGB")) for each in files])
    np.savez(tmp_path / "my.npz", images=pixels, labels=np.array([each.parent.name for each in files]))
    of_arrays = ask(zoo, tmp_path / "my.npz")
    for other in (of_table, of_arrays):
        assert other["dataset"]["class_names"] == plain["dataset"]["class_names"] == ["left", "middle", "right"]
        assert other["models"][0]["expected_accuracy"] == plain["models"][0]["expected_accuracy"]
        assert other["models"][0]["scores"] == pytest.approx(plain["models"][0]["scores"], rel=1e-4)


@pytest.mark.parametrize(
    ("made", "words", "told"),
    [
        ((), (), ["has no images", "photos/cat/1.jpg, photos/dog/2.jpg"]),
        (("left/1.png", "left/2.png"), (), ["there are left 2. Add a folder, or label, for a second class."]),
        (("1.png", "2.png"), (), ["has 2 images, but no folder for each class"]),
        (("left/1.png", "left/2.png", "right/3.png"), (), ["there are left 2, right 1. Add images to the classes."]),
        (("left/1.png", "t.csv"), ("t.csv",), ["which column is the label can't be found out", "--labels NAME"]),
    ],
    ids=["nothing", "one class", "no classes", "three images", "unknown column"],
)
def test_too_little_is_refused_with_what_to_do(zoo, tmp_path, made, words, told):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(made):
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".csv"):
            (folder / name).write_text("file,a,b\n1.png,2,3\n")
        else:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    said = refusal(zoo, folder.joinpath(*words))
    for each in told:
        assert each in said
