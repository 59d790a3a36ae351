"""Features of a dataset's images by a pretrained model: decoded by threads, run in batches."""

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.pretrained_model import PretrainedModel

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = {"cpu": 32, "cuda": 128}
_logger = logging.getLogger(__name__)


class Images(Protocol):
    """What is needed of a dataset: `data.images.image_dataset.ImageDataset` has it."""

    @property
    def name(self) -> str: ...
    @property
    def digests(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def image(self, index: int) -> "Image": ...


@dataclass(frozen=True)
class ImageFeatures:
    """What a model makes of n images.

    Attributes:
        features: (n, d) float32.
        logits: (n, K) float32 of the model's own classes; None where it has none.
        seconds_an_image: time that one image took, decoding included; NaN where all came from the cache.
        from_cache: how many of the images were not computed anew.
        notes: what was done aloud: a damaged file of the cache made anew, old ones removed.
    """

    features: np.ndarray
    logits: np.ndarray | None
    seconds_an_image: float
    from_cache: int
    notes: tuple[str, ...] = ()


def image_features(
    model: PretrainedModel,
    dataset: Images,
    cache: Path | None,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Compute features of all images of a dataset, and the model's own logits.

    On CUDA the model runs in bfloat16 where it may (autocast), with channels last; on a CPU in float32. Which images
    share a batch may change the last bits of a feature.

    Args:
        model: the model.
        dataset: the images; `digests` name their content.
        cache: folder in which features are kept; None keeps none.
        batch_size: images of a pass; None chooses; it is halved where the device's memory is too small.
        device: device to run on; None takes CUDA where it is.
        progress: called with how many images are done.

    Raises:
        ModelUnavailableError: the model can't be run, or gives features that aren't finite.
        DataError: an image can't be read any more.
    """
    place = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    parts = list(_compute(model, dataset, list(range(len(dataset))), batch_size or _BATCH.get(place.type, 32), place,
                          progress))  # fmt: skip
    features = np.concatenate([part[1] for part in parts])
    logits = None if parts[0][2] is None else np.concatenate([part[2] for part in parts if part[2] is not None])
    return ImageFeatures(features, logits, (time.perf_counter() - started) / max(1, len(dataset)), 0)


def _compute(
    model: PretrainedModel,
    dataset: Images,
    indices: Sequence[int],
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[Sequence[int], np.ndarray, np.ndarray | None]]:
    """Yield indices, features and logits of one batch after another."""
    model.eval().to(device)
    done = 0
    for chosen, pixels in _batches(model, dataset, indices, batch_size):
        features, logits = _run(model, pixels, device)
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features).all(axis=1)).sum())
            raise ModelUnavailableError(
                f"{model.entry.where}: features of {bad} of {len(features)} images are not finite."
            )
        done += len(chosen)
        if progress is not None:
            progress(done)
        yield chosen, features, logits


def _batches(
    model: PretrainedModel, dataset: Images, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yield (n, C, H, W) float32 of images that threads decode ahead of the model."""

    def load(index: int) -> torch.Tensor:
        return model.preprocessing(dataset.image(index))

    groups = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    workers = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[list[Future[torch.Tensor]]] = deque()
        try:
            for place, group in enumerate(groups):
                while len(ahead) < 2 and place + len(ahead) < len(groups):
                    ahead.append([pool.submit(load, index) for index in groups[place + len(ahead)]])
                yield group, torch.stack([future.result() for future in ahead.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@torch.inference_mode()
def _run(model: PretrainedModel, pixels: torch.Tensor, device: torch.device) -> tuple[np.ndarray, np.ndarray | None]:
    with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext():
        features = model.features(pixels.to(device, memory_format=torch.channels_last))
        logits = model.source_logits(features)
    # A synchronisation: the batch is done.
    return features.float().cpu().numpy(), None if logits is None else logits.float().cpu().numpy()
