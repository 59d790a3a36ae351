"""The image domains of the zoo: 12x12 grey images, their pools, and the views that networks are trained on.

`data/zoo/images.npz` holds them; `python -m data.build_zoo_images` makes it.
"""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from constants import ZOO_DIR
from data.data_error import DataError

IMAGE_SIZE = 12
IMAGES_PATH = ZOO_DIR / "images.npz"
POOLS = ("source_train", "source_test", "target_train", "target_test")
"""Disjoint pools of a domain's images. The zoo's networks see the two source pools and nothing else."""
VIEWS = ("plain", "rotated", "inverted", "noisy", "blurred", "permuted")
_VIEW_SEED = 20_240  # one pixel permutation for the whole zoo
_NOISE = 45.0  # standard deviation of the noisy view, of 255
_REBUILD = "Restore it with `git checkout data/zoo`, or rebuild it with `python -m data.build_zoo_images`."


@dataclass(frozen=True)
class ImageDomain:
    """Images of one kind with their classes.

    Attributes:
        name: name of the domain, such as `mnist`.
        images: (N, 12, 12) uint8 grey images.
        labels: (N,) int64 class of each image, an index into `class_names`.
        pools: (N,) uint8 pool of each image, an index into `POOLS`.
        class_names: a name for each class.
        source_classes: the classes (at most 10) that source tasks use; the others have target images only.
        about: source and licence of the images.
    """

    name: str
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    pools: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    source_classes: tuple[int, ...]
    about: str

    def select(self, pool: str, classes: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pick a pool's images of some classes.

        Args:
            pool: name of the pool, one of `POOLS`.
            classes: indices into `class_names`; None for the source classes.

        Returns:
            images (n, 12, 12) uint8, and labels (n,) int64 renumbered 0, 1, ... in the order of `classes`.

        Raises:
            DataError: an unknown pool or class.
        """
        chosen = self.source_classes if classes is None else tuple(classes)
        if pool not in POOLS:
            raise DataError(f"domain {self.name} has no pool {pool!r}; allowed: {', '.join(POOLS)}.")
        if unknown := [label for label in chosen if not 0 <= label < len(self.class_names)]:
            raise DataError(f"domain {self.name} has classes 0 to {len(self.class_names) - 1}, not {unknown}.")
        new_label = np.full(len(self.class_names), -1, np.int64)
        new_label[list(chosen)] = np.arange(len(chosen))
        rows = (self.pools == POOLS.index(pool)) & (new_label[self.labels] >= 0)
        return self.images[rows], new_label[self.labels[rows]]


def load_domains(path: Path = IMAGES_PATH) -> dict[str, ImageDomain]:
    """Read all image domains.

    Args:
        path: the file that `data.build_zoo_images` wrote.

    Returns:
        Domains by name, in the order of the file.

    Raises:
        DataError: the file is missing, damaged, or its arrays don't fit each other.
    """
    try:
        # allow_pickle=False: arrays only, never code.
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"there is no image file {path}. {_REBUILD}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"cannot read the images of {path}: {error}. {_REBUILD}") from error
    domains = {}
    for name in dict.fromkeys(key.partition("/")[0] for key in arrays):
        try:
            parts = {part: arrays[f"{name}/{part}"] for part in _PARTS}
        except KeyError as error:
            raise DataError(f"{path}: domain {name} lacks the array {error}. {_REBUILD}") from error
        domains[name] = _domain(name, parts, path)
    if not domains:
        raise DataError(f"{path} holds no domain. {_REBUILD}")
    return domains


_PARTS = ("images", "labels", "pools", "class_names", "source_classes", "about")


def _domain(name: str, parts: dict[str, np.ndarray], path: Path) -> ImageDomain:
    images, labels, pools, class_names, source_classes, about = (parts[part] for part in _PARTS)
    count = len(images) if images.ndim == 3 else -1
    fits = (
        images.shape == (count, IMAGE_SIZE, IMAGE_SIZE)
        and images.dtype == np.uint8
        and labels.shape == pools.shape == (count,)
        and count > 0
        and int(labels.max()) < len(class_names)
        and int(pools.max()) < len(POOLS)
        and 2 <= len(source_classes) <= 10
        and int(source_classes.max()) < len(class_names)
    )
    if not fits:
        raise DataError(
            f"{path}: the arrays of domain {name} don't fit each other: images {images.dtype} {images.shape}, labels "
            f"{labels.shape}, pools {pools.shape}, {len(class_names)} classes, {len(source_classes)} source classes; "
            f"needed: images uint8 (N, 12, 12), labels and pools (N,), 2 to 10 source classes. {_REBUILD}"
        )
    return ImageDomain(
        name=name,
        images=images,
        labels=labels.astype(np.int64),
        pools=pools.astype(np.uint8),
        class_names=tuple(str(class_name) for class_name in class_names),
        source_classes=tuple(int(label) for label in source_classes),
        about=str(about),
    )


def save_domains(domains: dict[str, ImageDomain], path: Path) -> None:
    """Write all image domains as one compressed file that needs no pickle.

    Args:
        domains: image domains by name; the order is kept.
        path: the file to write.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, domain in domains.items():
        arrays[f"{name}/images"] = domain.images
        arrays[f"{name}/labels"] = domain.labels.astype(np.uint8)
        arrays[f"{name}/pools"] = domain.pools.astype(np.uint8)
        arrays[f"{name}/class_names"] = np.asarray(domain.class_names)
        arrays[f"{name}/source_classes"] = np.asarray(domain.source_classes, np.uint8)
        arrays[f"{name}/about"] = np.asarray(domain.about)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def apply_view(images: np.ndarray, view: str) -> np.ndarray:
    """Show images as a network of that view sees them. The same array gives the same result every time.

    Args:
        images: (N, 12, 12) uint8 grey images.
        view: `plain`; `rotated` by 90 degrees; `inverted` grey levels; `noisy` (Gaussian, standard deviation 45 of
            255); `blurred` (3x3 binomial kernel); `permuted` (one fixed shuffle of the 144 pixels).

    Returns:
        (N, 12, 12) uint8.

    Raises:
        DataError: an unknown view.
    """
    if view == "plain":
        return images
    if view == "rotated":
        return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))
    if view == "inverted":
        return 255 - images
    if view == "noisy":
        # Seeded by the images: one stream for all would give the n-th image of every pool the same noise, and as pools
        # are sorted by class, the noise would tell the class.
        rng = np.random.default_rng([_VIEW_SEED, zlib.crc32(np.ascontiguousarray(images))])
        noise = rng.normal(0.0, _NOISE, images.shape)
        return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    if view == "blurred":
        return _blur(images)
    if view == "permuted":
        order = np.random.default_rng(_VIEW_SEED).permutation(IMAGE_SIZE * IMAGE_SIZE)
        return images.reshape(len(images), -1)[:, order].reshape(images.shape)
    raise DataError(f"there is no view {view!r}; allowed: {', '.join(VIEWS)}.")


def _blur(images: np.ndarray) -> np.ndarray:
    """Convolve with [1 2 1] / 4 along both axes; the border repeats."""
    padded = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return np.rint((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4).astype(np.uint8)
