"""Glyphs of several scripts, drawn from the fonts inside matplotlib: classes are characters."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from data.zoo_images import IMAGE_SIZE, POOLS, ImageDomain

SCRIPTS = {
    "latin_capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "latin_small": "abcdefghijklmnopqrstuvwxyz",
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "бвгджзийлмнптуфцчшщыьэюяъё",
    "armenian": "աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ",
    "georgian": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשתךםןףץ",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "maths": "∀∂∃∅∇∈∋∏∑∓∗√∝∞∠∧∨∩∪∫∮∴∼≅≈≠≡≤≥⊂⊃⊆⊕⊗⊥⊢⌈⌊",  # noqa: RUF001 (these are the characters that are meant)
}
_DEJAVU = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")
_STYLES = {"DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic")}
_FONTS = tuple(
    font + style for font in _DEJAVU for style in _STYLES.get(font, ("", "-Bold", "-Oblique", "-BoldOblique"))
)
_STIX = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
# Computer Modern files use their own encodings; their Latin letters are where they should be.
_COMPUTER_MODERN = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
_SCRIPT_FONTS = {
    "latin_capitals": (*_FONTS, *_STIX, *_COMPUTER_MODERN),
    "latin_small": (*_FONTS, *_STIX, *_COMPUTER_MODERN),
    "greek": (*_FONTS, *_STIX),
    "cyrillic": (*_FONTS, *_STIX),
    "armenian": _FONTS,
    "georgian": _FONTS,
    "hebrew": ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique"),
    "arabic": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSansMono"),
    "maths": ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "STIXGeneral",
              "STIXGeneralBol"),
}  # fmt: skip
SOURCE_CLASSES = 10
POOL_IMAGES = {"source_train": 150, "source_test": 50, "target_train": 24, "target_test": 24}
MORE_TARGET_IMAGES = {"target_train": 1, "target_test": 76}
"""Of the source classes and ten others. Drawn last, so that the images above stay as the zoo was trained on them."""
_CANVAS = 6 * IMAGE_SIZE  # pixels of the drawing that is averaged down to 12x12


def glyph_domain(script: str, seed: int) -> ImageDomain:
    """Draw a script's characters with small random rotation, shear, scale, shift and stroke width.

    Every second font serves the source pools, the others the target pools, so no glyph outline is in both.

    Args:
        script: a key of `SCRIPTS`.
        seed: seed of everything random.
    """
    rng = np.random.default_rng([seed, *script.encode()])
    characters = SCRIPTS[script]
    source_classes = sorted(rng.permutation(len(characters))[:SOURCE_CLASSES].tolist())
    fonts = {"source": _SCRIPT_FONTS[script][::2], "target": _SCRIPT_FONTS[script][1::2]}
    images, labels, pools = [], [], []

    def draw(label: int, pool: str, count: int) -> None:
        choice = fonts[pool.partition("_")[0]]
        for drawn in range(count):
            images.append(_draw(characters[label], choice[drawn % len(choice)], rng))
            labels.append(label)
            pools.append(POOLS.index(pool))

    for label in range(len(characters)):
        for pool in POOLS:
            if label in source_classes or pool.startswith("target"):
                draw(label, pool, POOL_IMAGES[pool])
    others = [label for label in range(len(characters)) if label not in source_classes]
    for label in sorted(source_classes + rng.permutation(others)[:SOURCE_CLASSES].tolist()):
        for pool, count in MORE_TARGET_IMAGES.items():
            draw(label, pool, count)
    return ImageDomain(
        name=script,
        images=np.stack(images),
        labels=np.asarray(labels, np.int64),
        pools=np.asarray(pools, np.uint8),
        class_names=tuple(characters),
        source_classes=tuple(source_classes),
        about="drawn from the fonts inside matplotlib (DejaVu, STIX, Computer Modern; free font licences)",
    )


@cache
def _outline(character: str, font: str) -> Image.Image:
    """Draw a character in white on black, centred by its ink, on a canvas with room to move."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    drawn = Image.new("L", (4 * _CANVAS, 4 * _CANVAS))
    loaded = ImageFont.truetype(str(path), size=round(0.85 * _CANVAS))
    ImageDraw.Draw(drawn).text((2 * _CANVAS, 2 * _CANVAS), character, fill=255, font=loaded, anchor="mm")
    left, top, right, bottom = drawn.getbbox() or (0, 0, 1, 1)
    offset = (2 * _CANVAS - (left + right) // 2, 2 * _CANVAS - (top + bottom) // 2)
    return ImageChops.offset(drawn, *offset).crop((_CANVAS, _CANVAS, 3 * _CANVAS, 3 * _CANVAS))


def _draw(character: str, font: str, rng: np.random.Generator) -> np.ndarray:
    image = _outline(character, font)
    stroke = (1, 3, 5)[rng.integers(3)]  # pixels of the canvas; 1 leaves it as it is
    if stroke > 1:
        image = image.filter(ImageFilter.MaxFilter(stroke))
    angle, shear = np.deg2rad(rng.normal(0, 7)), rng.normal(0, 0.12)
    scale = rng.uniform(0.65, 0.95, size=2)  # below 1: larger, as the map goes from output to input
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ np.diag(scale)
    shift = rng.normal(0, 0.05, size=2) * _CANVAS
    # Output pixel (x, y) of the canvas shows input pixel matrix @ (x, y) + offset; centres meet up to the shift.
    offset = np.array([_CANVAS, _CANVAS]) - matrix @ (np.array([_CANVAS, _CANVAS]) / 2 + shift)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    moved = image.transform((_CANVAS, _CANVAS), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(moved.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))
