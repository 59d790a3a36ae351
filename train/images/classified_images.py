"""The images of a run: read, divided, and as loaders."""

import numpy as np
import torch

from config import ConfigError
from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from constants.counting import counted
from data.images.image_batches import Augmentation, ImageCache, ImageSamples, Mixing
from data.images.image_checks import DIGESTS_FOLDER
from data.images.image_dataset import read_image_dataset
from data.images.image_split import split_images
from data.images.unlabelled_images import UnlabelledImages, read_unlabelled_images
from data.loaders import EpochLoader, make_loader
from data.pretrained.input_spec import InputSpec


class ClassifiedImages:
    """A dataset of images in three parts, and the loaders of these.

    Its attributes lie in slots, which nobody looks into who gathers what a checkpoint must hold.

    Args:
        config: settings of the run.

    Attributes:
        dataset: all images.
        split: which of them are trained on, validated with, tested on.
        unlabelled: images to predict; None where none are named.

    Raises:
        ConfigError: no data is named.
        DataError: the images can't be read, or not be divided.
    """

    __slots__ = ("cache", "config", "dataset", "split", "unlabelled")

    def __init__(self, config: ImageClassifierTrainerConfig) -> None:
        if config.data is None:
            raise ConfigError(
                ["data: no images are named; data=photos/ names a folder with a sub-folder for each class, or a file"]
            )
        self.config = config
        self.dataset = read_image_dataset(
            config.data, labels=config.labels, images=config.images, max_images=config.max_images or None,
            seed=config.split_seed, cache=config.artifacts_dir / DIGESTS_FOLDER,
        )  # fmt: skip
        self.split = split_images(
            self.dataset.labels, self.dataset.digests, self.dataset.parts, config.val_share, config.test_share,
            config.split_seed, self.dataset.class_names,
        )  # fmt: skip
        self.unlabelled: UnlabelledImages | None = None
        if config.predict_data is not None:
            self.unlabelled = read_unlabelled_images(config.predict_data, config.images, config.labels)
        self.cache = ImageCache(config.cache_mb * 2**20)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return self.dataset.class_names

    @property
    def keys_to_predict(self) -> tuple[str, ...]:
        """Names of the images of `unlabelled`."""
        return () if self.unlabelled is None else self.unlabelled.keys

    @property
    def left_out_of_prediction(self) -> tuple[str, ...]:
        """Sentences on images of `unlabelled` that can't be read."""
        return () if self.unlabelled is None else self.unlabelled.notes

    def train_loader(self, spec: InputSpec, device: torch.device) -> EpochLoader:
        """Return the loader of training batches: in another order in each epoch, changed as the settings say."""
        config, augmentation, mixing = self.config, None, None
        if config.augmentation != "none":
            augmentation = Augmentation(config.augmentation, spec, config.mirror, config.least_part)
        if config.mixup or config.cutmix:
            mixing = Mixing(config.mixup, config.cutmix, spec.size)
        indices = self.split.train
        samples = ImageSamples(
            self.dataset, indices, self.dataset.labels[indices], spec, self.cache, augmentation, mixing, config.seed
        )
        # A last batch of one image is nothing to take the variance of, for a norm over the batch.
        alone = len(indices) % config.batch_size == 1 and len(indices) > 1
        return make_loader(
            samples, config.batch_size, shuffle=True, num_workers=config.num_workers, seed=config.seed, device=device,
            drop_last=alone,
        )  # fmt: skip

    def val_loader(self, spec: InputSpec, device: torch.device) -> EpochLoader:
        """Return the loader of validation images, as the model was trained to be fed."""
        return self._fixed(self.split.val, spec, device)

    def test_loader(self, spec: InputSpec, device: torch.device) -> EpochLoader | None:
        """Return the loader of test images; None where there are none."""
        return self._fixed(self.split.test, spec, device) if len(self.split.test) else None

    def predict_loader(self, spec: InputSpec, device: torch.device) -> EpochLoader | None:
        """Return the loader of the images that `predict_data` names; None where it names none."""
        if self.unlabelled is None:
            return None
        samples = ImageSamples(self.unlabelled, np.arange(len(self.unlabelled)), None, spec, ImageCache(0))
        return make_loader(samples, self.config.batch_size, num_workers=self.config.num_workers, device=device)

    def _fixed(self, indices: np.ndarray, spec: InputSpec, device: torch.device) -> EpochLoader:
        samples = ImageSamples(self.dataset, indices, self.dataset.labels[indices], spec, self.cache)
        return make_loader(samples, self.config.batch_size, num_workers=self.config.num_workers, device=device)

    def class_weights(self) -> torch.Tensor | None:
        """Return each class's weight in the training loss, (classes,): their mean over images is 1. None: all 1."""
        if self.config.class_weights == "none":
            return None
        counts = np.bincount(self.dataset.labels[self.split.train], minlength=len(self.class_names))
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32)

    def lines(self) -> list[str]:
        """Say which images they are, for the log."""
        data, split = self.dataset, self.split
        sizes = {"to train on": split.train, "to validate with": split.val, "to test on": split.test}
        parts = ", ".join(f"{len(indices):,} {what}" for what, indices in sizes.items())
        classes = counted(len(data.class_names), "class")
        left_out = [f"left out: {each.key}: {each.reason}" for each in data.left_out[:10]]
        if len(data.left_out) > len(left_out):
            left_out.append(f"left out: {len(data.left_out) - len(left_out):,} more")
        return [f"{data.name}: {counted(len(data), 'image')} of {classes}: {parts}", *data.notes, *split.notes,
                *left_out]  # fmt: skip
