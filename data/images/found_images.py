"""What a reader has found of a dataset, before any image is opened."""

from dataclasses import dataclass, field

from data.images.image_sources import UnreadImages

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "dev": VALIDATION, "test": TEST, "testing": TEST, "eval": TEST, "evaluation": TEST,
}  # fmt: skip
"""Names that the parts of a dataset go by, in lower case, and the one that is used here."""
LAYOUTS = """What is read:
  photos/cat/1.jpg, photos/dog/2.jpg             a folder of images for each class
  photos/train/cat/1.jpg, photos/test/cat/2.jpg  the same in parts: train, val, test
  labels.csv                                     a column of files and one of labels, the files beside it
  my.npz                                         `images` (n, H, W) or (n, H, W, 3) and `labels` (n,)
  my.parquet                                     a column of images as bytes and one of labels
  train-images-idx3-ubyte, ...-labels-idx1-...   IDX files as MNIST's, in a folder"""


NAME_LABELS = "Name it: --labels NAME for recommend, labels=NAME for train."
NAME_IMAGES = "Name it: --images NAME for recommend, images=NAME for train."


@dataclass(frozen=True)
class LeftOut:
    """An image that is not in the dataset.

    Attributes:
        key: path relative to the folder, or the row.
        reason: why it is left out.
    """

    key: str
    reason: str


@dataclass
class FoundImages:
    """Images that a reader has found.

    Attributes:
        keys: path of each image relative to the folder, or its row.
        classes: name of each image's class.
        class_names: names of all classes in the order of their numbers, those without images too.
        source: opens the images, in the order of `keys`.
        parts: train, val or test for each image; None where the dataset has no parts.
        left_out: images that are not among them.
        notes: what was done, each a sentence.
        hint: what else may help where there are too few classes, a sentence after a blank; otherwise empty.
    """

    keys: list[str]
    classes: list[str]
    class_names: list[str]
    source: UnreadImages
    parts: list[str] | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hint: str = ""
