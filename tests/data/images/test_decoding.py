"""Opening images of all kinds: the colours that come of them, and the reasons where none do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import encoded, noise, png_bomb, png_of_16_bits
from PIL import Image

from data.images.decoding import ImageError, array_image, check_image, open_image

TURN = Image.Transpose
UNDONE_BY = {
    2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE, 6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE, 8: TURN.ROTATE_270,
}  # fmt: skip
"""How an image must be stored so that a viewer that follows the orientation shows it upright."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 100, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_images_are_turned_as_exif_says(kind, options, orientation):
    upright = Image.fromarray((np.arange(4 * 6 * 3).reshape(4, 6, 3) * 3).astype(np.uint8))
    stored = upright if orientation == 1 else upright.transpose(UNDONE_BY[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(stored, kind, exif=exif.tobytes(), **options))
    assert opened.size == (6, 4)
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(upright)).max() <= (1 if kind == "JPEG" else 0)


RED, OCHRE = (250, 10, 10), (10, 20, 30)


def palette(colour=OCHRE):
    return Image.new("RGB", (4, 4), colour).quantize(4)


def grey16(level):
    return Image.fromarray(np.full((4, 4), level, np.uint16))


def levels(value, dtype):
    return Image.fromarray(np.full((4, 4), value, dtype))


@pytest.mark.parametrize(
    ("image", "kind", "options", "colour"),
    [
        (Image.new("L", (4, 4), 100), "PNG", {}, (100, 100, 100)),
        (Image.new("L", (8, 8), 100), "JPEG", {}, (100, 100, 100)),
        (Image.new("1", (4, 4), 1), "PNG", {}, (255, 255, 255)),
        (Image.new("1", (4, 4), 0), "TIFF", {}, (0, 0, 0)),
        (Image.new("RGB", (4, 4), OCHRE), "BMP", {}, OCHRE),
        (Image.new("RGB", (4, 4), OCHRE), "TIFF", {"compression": "tiff_lzw"}, OCHRE),
        (Image.new("RGB", (4, 4), OCHRE), "WEBP", {"lossless": True}, OCHRE),
        (Image.new("RGB", (4, 4), OCHRE), "PPM", {}, OCHRE),
        (palette(), "GIF", {}, OCHRE),
        (palette(), "PNG", {}, OCHRE),
        # Over white: colour x alpha + 255 x (1 - alpha); 51 is a fifth, 128 a half.
        (Image.new("RGBA", (4, 4), (200, 100, 0, 51)), "PNG", {}, (244, 224, 204)),
        (Image.new("RGBA", (4, 4), (200, 100, 0, 51)), "WEBP", {"lossless": True}, (244, 224, 204)),
        (Image.new("RGBA", (4, 4), (200, 100, 0, 51)), "TIFF", {}, (244, 224, 204)),
        (Image.new("RGBA", (4, 4), (200, 100, 0, 255)), "PNG", {}, (200, 100, 0)),
        (Image.new("LA", (4, 4), (100, 128)), "PNG", {}, (177, 177, 177)),
        (palette(), "PNG", {"transparency": 0}, (255, 255, 255)),
        (palette(), "GIF", {"transparency": 0}, (255, 255, 255)),
        (palette(), "PNG", {"transparency": bytes([51])}, (206, 208, 210)),
        (Image.new("RGB", (4, 4), OCHRE), "PNG", {"transparency": OCHRE}, (255, 255, 255)),
        (Image.new("L", (4, 4), 10), "PNG", {"transparency": 10}, (255, 255, 255)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", {}, (255, 0, 0)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", {"quality": 100}, (255, 0, 0)),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", {"quality": 100}, (255, 255, 255)),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG", {"quality": 100}, (0, 0, 0)),
        (grey16(0), "PNG", {}, (0, 0, 0)),
        (grey16(32896), "PNG", {}, (128, 128, 128)),
        (grey16(257 * 40), "TIFF", {}, (40, 40, 40)),
        (grey16(65535), "PPM", {}, (255, 255, 255)),
        (levels(32896, np.int32), "TIFF", {}, (128, 128, 128)),
        (levels(0.2, np.float32), "TIFF", {}, (51, 51, 51)),
        (levels(51.0, np.float32), "TIFF", {}, (51, 51, 51)),
    ],
)
def test_every_mode_becomes_rgb(image, kind, options, colour):
    content = encoded(image, kind, **options)
    opened = open_image(content)
    assert opened.mode == "RGB" and opened.size == image.size and opened.getpixel((1, 2)) == colour
    assert not check_image(content).reason


def test_lab_is_the_colour_that_it_names():
    red = open_image(encoded(Image.new("LAB", (4, 4), (128, 128 + 60, 128)), "TIFF")).getpixel((0, 0))
    assert np.abs(np.array(red) - (206, 63, 122)).max() <= 3  # CIE Lab (50, 60, 0) in sRGB


@pytest.mark.parametrize(
    ("colour_type", "given", "colour"),
    [
        (0, (32896,), (128, 128, 128)),
        (2, (65535, 32896, 257), (255, 128, 1)),
        (4, (32896, 65535), (128, 128, 128)),
        (6, (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_pngs_of_16_bits_a_channel_are_scaled(colour_type, given, colour):
    assert open_image(png_of_16_bits(colour_type, *given)).getpixel((1, 1)) == colour


def test_levels_of_fewer_bits_are_scaled_by_the_white_that_is_given():
    content = encoded(grey16(819), "PNG")  # a fifth of 4095
    assert open_image(content, white=4095).getpixel((0, 0)) == (51, 51, 51)
    assert open_image(content).getpixel((0, 0)) == (3, 3, 3)
    assert check_image(content).brightest == 819


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_the_first_frame_is_taken(kind, options):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, OCHRE)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert open_image(content).getpixel((0, 0)) == RED


def test_a_larger_jpeg_may_be_decoded_smaller_but_never_below_what_is_needed():
    content = encoded(Image.new("RGB", (801, 605), RED), "JPEG")
    assert open_image(content).size == (801, 605) == open_image(content, 606).size
    assert open_image(content, 303).size == (801, 605) and open_image(content, 302).size == (401, 303)
    assert open_image(content, 75).size == (101, 76)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = open_image(encoded(Image.new("RGB", (801, 605), RED), "JPEG", exif=exif.tobytes()), 75)
    assert turned.size == (76, 101)


WHOLE = encoded(noise(1), "PNG")
DAMAGED = bytearray(WHOLE)
DAMAGED[len(WHOLE) // 2] ^= 255


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"hello", "text, no image"),
        ("Grüße, über vierundsechzig Zeichen lang, damit ein Umlaut am Ende abgeschnitten wird: ä".encode(), "text"),
        (b"\n<!DOCTYPE html><html>", "a web page, no image: its download has failed"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "XML or SVG, which is not read: save it as PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, not the image: git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "an archive, no image: unpack it"),
        (bytes(400), "nothing but zero bytes"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC, which Pillow doesn't read"),
        (b"\x01\x02\x03\xff" * 40, "no image, or damaged at its beginning"),
        (WHOLE[:2000], "cut short"),
        (WHOLE[:20], "cut short"),
        (bytes(DAMAGED), "damaged"),
        (encoded(noise(1), "JPEG")[:800], "cut short"),
        (encoded(noise(1), "JPEG")[:20], "cut short or damaged within its header"),
        (encoded(noise(1), "BMP")[:800], "cut short"),
        (encoded(noise(1), "TIFF")[:800], "cut short"),
        (encoded(noise(1), "GIF")[:800], "cut short"),
        (encoded(noise(1), "WEBP")[:400], "damaged"),
        (png_bomb(), "too large to be opened safely"),
        (encoded(levels(np.nan, np.float32), "TIFF"), "16 pixels of it NaN or infinite"),
    ],
)
def test_what_cant_be_opened_has_a_reason(content, reason):
    with pytest.raises(ImageError) as raised:
        open_image(content)
    assert str(raised.value).startswith(reason), str(raised.value)
    assert check_image(content).reason == str(raised.value)


KINDS = [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("BMP", {}), ("PPM", {}), ("AVIF", {}), ("JPEG2000", {}), ("QOI", {}), ("ICO", {}), ("TIFF", {}),
]  # fmt: skip
FILES = [encoded(noise(number), kind, **options) for number, (kind, options) in enumerate(KINDS)]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.sampled_from(FILES), st.data())
def test_what_passes_the_check_can_be_opened_however_it_is_broken(content, data):
    """No error of Pillow's gets through, and an image that is taken into a dataset can be opened later."""
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    broken = broken[: data.draw(st.integers(len(broken) // 2, len(broken)))]
    reason = check_image(bytes(broken)).reason
    if reason:
        with pytest.raises(ImageError):
            open_image(bytes(broken))
    else:
        assert open_image(bytes(broken)).mode == "RGB"


def test_files_that_are_missing_or_may_not_be_read_have_a_reason(tmp_path):
    assert check_image(tmp_path / "none.png").reason == "No such file or directory"
    assert check_image(tmp_path).reason == "Is a directory"


@pytest.mark.parametrize(
    ("pixels", "value_range", "colour"),
    [
        (np.full((2, 3), 100, np.uint8), None, (100, 100, 100)),
        (np.full((2, 3, 1), 100, np.int64), None, (100, 100, 100)),
        (np.full((2, 3), True), None, (255, 255, 255)),
        (np.full((2, 3), 0.2), None, (51, 51, 51)),
        (np.full((2, 3), 0.2), (0.0, 255.0), (0, 0, 0)),
        (np.full((2, 3, 3), 257 * 9, np.uint16), None, (9, 9, 9)),
        (np.broadcast_to([200, 100, 0, 51], (2, 3, 4)).astype(np.uint8), None, (244, 224, 204)),
        (np.full((2, 3), 0.0), (-1.0, 1.0), (128, 128, 128)),
    ],
)
def test_arrays_become_rgb(pixels, value_range, colour):
    image = array_image(pixels, value_range)
    assert image.mode == "RGB" and image.size == (3, 2) and image.getpixel((0, 0)) == colour


@pytest.mark.parametrize("pixels", [np.zeros(3), np.zeros((2, 3, 2)), np.zeros((0, 3)), np.array([["a"]])])
def test_arrays_that_are_no_images_are_refused(pixels):
    with pytest.raises(ImageError, match="an array|pixels of type"):
        array_image(pixels)
