"""Patches of photographs, scans and terrain: classes are images or regions of them."""

from collections.abc import Callable
from types import ModuleType

import numpy as np

from data.zoo_images import IMAGE_SIZE, POOLS, ImageDomain

# class: (image, top, bottom, left, right), in fractions of the image's height and width
Region = tuple[str, float, float, float, float]
TEXTURE_DOMAINS: dict[str, dict[str, Region]] = {
    "materials": {
        "brick": ("brick", 0, 1, 0, 1),
        "grass": ("grass", 0, 1, 0, 1),
        "gravel": ("gravel", 0, 1, 0, 1),
        "coins": ("coins", 0, 1, 0, 1),
        "print": ("page", 0, 1, 0, 1),
        "handwriting": ("text", 0, 1, 0, 1),
        "pagoda": ("china", 0.2, 0.95, 0.15, 0.52),
        "foliage": ("china", 0.7, 1, 0.58, 1),
        "petals": ("flower", 0.22, 0.82, 0.28, 0.69),
        "wood": ("coffee", 0, 1, 0.8, 1),
        "fur": ("cat", 0, 1, 0.2, 0.85),
        "lawn": ("camera", 0.65, 1, 0.35, 1),
    },
    "photographs": {
        "astronaut": ("astronaut", 0, 1, 0, 1),
        "cameraman": ("camera", 0, 0.64, 0, 1),
        "coffee": ("coffee", 0, 1, 0, 0.78),
        "garage": ("motorcycle", 0, 0.5, 0, 1),
        "motorcycle": ("motorcycle", 0.5, 1, 0, 1),
        "portrait": ("hopper", 0, 1, 0, 1),
        "rocket": ("rocket", 0, 0.66, 0, 1),
        "launch_pad": ("rocket", 0.66, 1, 0, 1),
        "leaves": ("flower", 0, 1, 0, 0.26),
        "faces": ("faces", 0, 1, 0, 1),
    },
    "science": {
        "cell": ("cell", 0, 1, 0, 1),
        "tissue": ("immunohistochemistry", 0, 1, 0, 1),
        "optic_disc": ("retina", 0.2, 0.8, 0.05, 0.35),
        "macula": ("retina", 0.2, 0.8, 0.5, 0.9),
        "galaxies": ("hubble", 0, 1, 0, 1),
        "moon_north": ("moon", 0, 0.5, 0, 1),
        "moon_south": ("moon", 0.5, 1, 0, 1),
        "brain": ("mri", 0.12, 0.56, 0.2, 0.78),
        "neck": ("mri", 0.56, 1, 0.1, 0.68),
        "capillaries": ("microaneurysms", 0, 1, 0, 1),
        "clock": ("clock", 0.2, 0.8, 0.2, 0.8),
    },
    "terrain": {
        f"block_{row}{column}": ("dem", row / 3, (row + 1) / 3, column / 4, (column + 1) / 4)
        for row in range(3)
        for column in range(4)
    },
}
_ABOUT = {
    "materials": "photographs of scikit-image and scikit-learn (free licences: see those packages)",
    "photographs": "photographs of scikit-image, scikit-learn and matplotlib (free licences); faces of Labeled Faces "
    "in the Wild",
    "science": "microscope, telescope and medical images of scikit-image and matplotlib (free licences)",
    "terrain": "elevation model of Jacksboro, Tennessee, in matplotlib (USGS, public domain)",
}
SOURCE_CLASSES = 8
POOL_IMAGES = {"source_train": 240, "source_test": 60, "target_train": 40, "target_test": 40}
MORE_TEST_IMAGES = 60  # of each class; cut last, so that the images above stay as the zoo was trained on them
_GRID = 8  # a region is cut into 8x8 blocks; each belongs to one pool, so pools share no pixel
_CROPS = {"materials": (14, 28), "photographs": (24, 48), "science": (14, 32), "terrain": (12, 14)}
"""Smallest and largest side in pixels of a patch before it is averaged down to 12x12, where the block has room."""


def texture_domain(name: str, seed: int, need: Callable[[str, str], ModuleType]) -> ImageDomain:
    """Cut patches out of images; the patches of different pools come from different areas.

    Args:
        name: name of the domain, a key of `TEXTURE_DOMAINS`.
        seed: seed of everything random.
        need: function that imports a package or says that it is missing.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    regions = TEXTURE_DOMAINS[name]
    source_classes = sorted(rng.permutation(len(regions))[:SOURCE_CLASSES].tolist())
    images, labels, pools = [], [], []

    def cut(label: int, pool: str, count: int) -> None:
        blocks = _blocks(areas[label], POOLS.index(pool))
        for drawn in range(count):
            images.append(_patch(blocks[drawn % len(blocks)], _CROPS[name], rng))
            labels.append(label)
            pools.append(POOLS.index(pool))

    areas = [_area(*region, need) for region in regions.values()]
    for label in range(len(areas)):
        for pool in POOLS:
            if label in source_classes or pool.startswith("target"):
                cut(label, pool, POOL_IMAGES[pool])
    for label in range(len(areas)):
        cut(label, "target_test", MORE_TEST_IMAGES)
    return ImageDomain(
        name=name,
        images=np.stack(images),
        labels=np.asarray(labels, np.int64),
        pools=np.asarray(pools, np.uint8),
        class_names=tuple(regions),
        source_classes=tuple(source_classes),
        about=_ABOUT[name],
    )


def _area(
    image_name: str, top: float, bottom: float, left: float, right: float, need: Callable[[str, str], ModuleType]
) -> np.ndarray:
    """Load an image and cut out a region, given in shares of its height and width."""
    image = _load(image_name, need)
    height, width = image.shape
    return image[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def _blocks(region: np.ndarray, pool_index: int) -> list[np.ndarray]:
    """Return the 16 blocks of a pool: two in each row and column of the grid, none beside another."""
    rows = np.linspace(0, region.shape[0], _GRID + 1).astype(int)
    columns = np.linspace(0, region.shape[1], _GRID + 1).astype(int)
    blocks = []
    for row in range(_GRID):
        for column in range(_GRID):
            if (2 * row + column) % len(POOLS) == pool_index:
                blocks.append(region[rows[row] : rows[row + 1], columns[column] : columns[column + 1]])
    return blocks


def _patch(block: np.ndarray, crops: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    side = min(int(rng.integers(crops[0], crops[1] + 1)), *block.shape)
    top, left = (int(rng.integers(extent - side + 1)) for extent in block.shape)
    patch = Image.fromarray(np.ascontiguousarray(block[top : top + side, left : left + side]))
    return np.asarray(patch.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


def _load(name: str, need: Callable[[str, str], ModuleType]) -> np.ndarray:
    """Load an image as grey uint8 (H, W)."""
    if name in ("china", "flower"):
        image = need("sklearn.datasets", "scikit-learn").load_sample_image(f"{name}.jpg")
    elif name in ("hopper", "mri", "dem"):
        image = _matplotlib_sample(name)
    else:
        image = _scikit_image(name, need("skimage.data", "scikit-image"))
    if image.ndim == 3:
        image = image[..., :3] @ np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _matplotlib_sample(name: str) -> np.ndarray:
    from matplotlib import cbook
    from PIL import Image

    if name == "hopper":
        with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    if name == "mri":
        with cbook.get_sample_data("s1045.ima.gz") as file:
            scan = np.frombuffer(file.read(), np.uint16).reshape(256, 256).astype(np.float64)
        return 255 * scan / scan.max()
    heights = cbook.get_sample_data("jacksboro_fault_dem.npz")["elevation"].astype(np.float64)
    return 255 * (heights - heights.min()) / (heights.max() - heights.min())


def _scikit_image(name: str, skimage_data: ModuleType) -> np.ndarray:
    if name == "motorcycle":
        return skimage_data.stereo_motorcycle()[0]
    if name == "faces":
        # The first 100 of its images of 25x25 pixels are faces; tiled so that a block of the grid is one face.
        faces = skimage_data.lfw_subset()[: _GRID**2].reshape(_GRID, _GRID, 25, 25)
        return 255 * faces.transpose(0, 2, 1, 3).reshape(_GRID * 25, _GRID * 25)
    return getattr(skimage_data, {"hubble": "hubble_deep_field"}.get(name, name))()
