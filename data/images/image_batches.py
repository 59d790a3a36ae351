"""Batches of images for a classifier: decoded, cut and changed here, normalised on the device."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from data.pretrained.input_spec import InputSpec, Preprocessing
from data.pretrained.torchvision_import import import_torchvision

if TYPE_CHECKING:
    from PIL.Image import Image

AugmentationName = Literal["none", "light", "randaugment", "trivialaugment"]
Sample = dict[str, torch.Tensor]

# Mixing is drawn by the same words as augmentation is, apart from it.
_MIXING = 1
_SPARE = 2  # how many times the model's side an image is decoded with at least, before a part of it is taken


class OpensImages(Protocol):
    """Images by number; it can be sent to other processes."""

    def image(self, index: int, at_least: int | None = None) -> "Image":
        """Open an image as RGB; where its shorter side needs but `at_least` pixels, perhaps a smaller one, faster."""
        ...


class ImageCache:
    """Arrays of images that have been read, up to a number of bytes in each process that reads.

    Its attributes lie in slots: nobody who gathers what a checkpoint must hold looks into them.

    Args:
        most_bytes: most bytes of all arrays; workers share it.
    """

    __slots__ = ("_arrays", "_bytes", "_most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._arrays: dict[tuple[str, int], np.ndarray] = {}

    def get(self, kind: str, index: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an array, which must not be changed.

        Args:
            kind: what of an image it is.
            index: number of the image.
            read: function that makes it, where it is not there.
        """
        array = self._arrays.get((kind, index))
        if array is None:
            array = read()
            worker = get_worker_info()
            if self._bytes + array.nbytes <= self._most_bytes // (worker.num_workers if worker else 1):
                self._arrays[kind, index] = array
                self._bytes += array.nbytes
        return array


class Augmentation:
    """Changes a training image at random, by torch's random numbers alone.

    Args:
        name: `light`, a random part of the image, resized, and mirrored half the time; `randaugment` (Cubuk et al.
            2020) and `trivialaugment` (Mueller and Hutter 2021) go on from there, as torchvision has them.
        spec: how the model is fed.
        mirror: whether images are mirrored.
        least_part: least share of the area that is left.

    Raises:
        ModelUnavailableError: torchvision isn't installed.
    """

    def __init__(self, name: AugmentationName, spec: InputSpec, mirror: bool, least_part: float) -> None:
        v2 = import_torchvision("torchvision.transforms.v2")
        modes = import_torchvision("torchvision.transforms").InterpolationMode
        filters = {mode.value: mode for mode in modes}
        steps = [
            v2.RandomResizedCrop(spec.size, scale=(least_part, 1.0), interpolation=filters[spec.interpolation]),
            *([v2.RandomHorizontalFlip()] if mirror else []),
            *([v2.RandAugment(interpolation=modes.BILINEAR)] if name == "randaugment" else []),
            *([v2.TrivialAugmentWide(interpolation=modes.BILINEAR)] if name == "trivialaugment" else []),
        ]
        self._change = v2.Compose(steps)

    def __call__(self, image: "Image") -> "Image":
        """Return a changed image of the model's size."""
        changed: Image = self._change(image)
        return changed


class Mixing:
    """Draws how much of another image an image gets: mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), by sample.

    Args:
        mixup: alpha of mixup's Beta distribution; 0 for none.
        cutmix: alpha of CutMix's; 0 for none. With both, each for half of the images.
        size: (H, W) of the images.
    """

    def __init__(self, mixup: float, cutmix: float, size: tuple[int, int]) -> None:
        self.mixup, self.cutmix, self.size = mixup, cutmix, size

    def __call__(self, draw: np.random.Generator) -> tuple[float, tuple[int, int, int, int]]:
        """Draw for one image: the share that it keeps of itself, and the box (top, bottom, left, right) it loses."""
        if self.mixup and (not self.cutmix or draw.random() < 0.5):
            return float(draw.beta(self.mixup, self.mixup)), (0, 0, 0, 0)
        side = (1 - draw.beta(self.cutmix, self.cutmix)) ** 0.5
        edges = []
        for length in self.size:
            centre, half = draw.integers(length), side * length / 2
            edges += [max(0, round(centre - half)), min(length, round(centre + half))]
        return 1.0, (edges[0], edges[1], edges[2], edges[3])


class ImageSamples(Dataset[Sample]):
    """Some images of a dataset, as a model is fed with them.

    What is random of a sample follows from (seed, epoch, the image's number) alone: the same with any number of
    workers, in any order of the batches, and in a run that was interrupted.

    A sample holds `image` (H, W, C) uint8 as the model's Preprocessing cuts it, `label` int64, `index` int64 (the
    image's number in the dataset), and where images are mixed `keep` float32 and `box` (4,) int64, as `Mixing` draws.

    Args:
        images: opens the images that these are some of.
        indices: numbers of the images, (n,) int64.
        labels: classes of these images, (n,) int64; None where nobody knows them, and samples have no label.
        spec: how the model is fed.
        cache: keeps what was decoded.
        augmentation: changes training images; None for images as they are.
        mixing: draws how images are mixed; None where they aren't.
        seed: seed of what is random.
    """

    __slots__ = ("augmentation", "cache", "epoch", "images", "indices", "labels", "mixing", "preprocessing", "seed")

    def __init__(
        self,
        images: OpensImages,
        indices: np.ndarray,
        labels: np.ndarray | None,
        spec: InputSpec,
        cache: ImageCache,
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
        seed: int = 0,
    ) -> None:
        self.images, self.indices, self.labels, self.cache = images, indices, labels, cache
        self.preprocessing = Preprocessing(spec)
        self.augmentation, self.mixing, self.seed, self.epoch = augmentation, mixing, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn for."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Sample:
        index = int(self.indices[number])
        pixels = self._fixed(index) if self.augmentation is None else self._changed(index, self.augmentation)
        sample = {"image": torch.from_numpy(pixels), "index": torch.tensor(index)}
        if self.labels is not None:
            sample["label"] = torch.tensor(int(self.labels[number]))
        if self.mixing is not None:
            keep, box = self.mixing(np.random.default_rng((self.seed, self.epoch, index, _MIXING)))
            sample |= {"keep": torch.tensor(keep, dtype=torch.float32), "box": torch.tensor(box)}
        return sample

    def _fixed(self, index: int) -> np.ndarray:
        def read() -> np.ndarray:
            return self._pixels(self.preprocessing.cropped(self.images.image(index)))

        return self.cache.get("cut", index, read)

    def _changed(self, index: int, augmentation: Augmentation) -> np.ndarray:
        from PIL import Image

        def read() -> np.ndarray:
            return np.array(self.images.image(index, _SPARE * max(self.preprocessing.spec.size)), dtype=np.uint8)

        whole = self.cache.get("whole", index, read)
        image = Image.fromarray(whole)
        if self.preprocessing.spec.channels == 1:
            image = image.convert("L")
        # `make_loader` puts the generator back, and so do those who read single samples.
        torch.default_generator.manual_seed(
            int(np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)[0] >> 1)
        )
        return self._pixels(augmentation(image))

    def _pixels(self, image: "Image") -> np.ndarray:
        """Return an image of the model's size as (H, W, C) uint8, colours in the model's order."""
        pixels = np.array(image, dtype=np.uint8)  # which can be written to, as torch wants it
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        return np.ascontiguousarray(pixels[:, :, ::-1]) if self.preprocessing.spec.order == "bgr" else pixels
