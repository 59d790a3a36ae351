"""Features of a dataset's images by a pretrained model: decoded by threads, run in batches, kept on disk."""

import contextlib
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from data.data_error import DataError
from data.pretrained.errors import ModelUnavailableError
from data.pretrained.feature_cache import FeatureCache, Row
from data.pretrained.pretrained_model import PretrainedModel

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = {"cpu": 32, "cuda": 128}
_AHEAD = 2  # batches that are decoded while one is run
_CHUNK_IMAGES, _CHUNK_SECONDS = 256, 20.0  # after which what was computed is kept
CACHE_LIMIT = 20 * 10**9
"""Bytes that the features of all models may take on disk."""


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
        seconds_an_image: time that one image took, decoding included, when it was computed.
        from_cache: how many of the images were not computed anew.
        notes: what was done aloud: damaged files of the cache, a full disk, a smaller batch.
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
    cache_limit: int = CACHE_LIMIT,
) -> ImageFeatures:
    """Compute features of all images of a dataset, and the model's own logits; what was computed before is read.

    On CUDA the model runs in bfloat16 where it may (autocast), with channels last; on a CPU in float32. Which images
    share a batch may change the last bits of a feature. What is done is kept every 256 images and 20 seconds, and when
    the call is interrupted: the next call goes on from there. An image that two datasets hold, or one twice, is
    computed once.

    Args:
        model: the model; it is moved to the device.
        dataset: the images; `digests` name their content.
        cache: folder in which features of all models are kept; None keeps none.
        batch_size: images of a pass; None chooses; it is halved where the device's memory is too small.
        device: device to run on; None takes CUDA where it is.
        progress: called with how many images are done.
        cache_limit: bytes that the cache may take; beyond, features that were used longest ago are removed, aloud.

    Raises:
        ModelUnavailableError: the model can't be run, or gives features that aren't finite.
        DataError: an image can't be read any more.
    """
    place = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    digests = list(dataset.digests)
    if not digests:
        raise DataError(f"{dataset.name} holds no image.")
    kept = None if cache is None else FeatureCache(cache, model.entry.name, f"{model.weights_digest} "
                                                   f"{model.input.key()} {place.type}")  # fmt: skip
    rows, seconds = kept.find(digests) if kept else ({}, float("nan"))
    counts = Counter(digests)
    done = from_cache = sum(counts[digest] for digest in rows)
    if progress is not None and done:
        progress(done)
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    missing = sorted(index for digest, index in first.items() if digest not in rows)
    runner = _Runner(model, place, batch_size or _BATCH.get(place.type, 32))
    chunk = _Chunk(kept)
    started = time.perf_counter()
    try:
        for indices, pixels in _batches(model, dataset, missing, runner.most):
            for index, row in zip(indices, runner.run(pixels), strict=True):
                rows[digests[index]] = row
                chunk.add(digests[index], row)
                done += counts[digests[index]]
            if progress is not None:
                progress(done)
            chunk.keep_if_due()
    finally:
        chunk.keep()
    if missing:
        seconds = (time.perf_counter() - started) / len(missing)
    if kept is not None:
        kept.tidy(cache_limit)
    found = [rows[digest] for digest in digests]
    logits = None if found[0][1] is None else np.stack([row[1] for row in found if row[1] is not None])
    notes = (*runner.notes, *(kept.notes if kept else ()))
    return ImageFeatures(np.stack([row[0] for row in found]), logits, seconds, from_cache, notes)


class _Chunk:
    """Rows that were computed and are not on disk yet."""

    def __init__(self, cache: FeatureCache | None) -> None:
        self._cache = cache
        self._rows: dict[str, Row] = {}
        self._since = time.perf_counter()

    def add(self, digest: str, row: Row) -> None:
        """Take the row of an image."""
        if self._cache is not None:
            self._rows[digest] = row

    def keep_if_due(self) -> None:
        """Write the rows if they are many, or have waited long."""
        if len(self._rows) >= _CHUNK_IMAGES or time.perf_counter() - self._since > _CHUNK_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write the rows."""
        if self._cache is not None and self._rows:
            features = np.stack([row[0] for row in self._rows.values()])
            logits = [row[1] for row in self._rows.values() if row[1] is not None]
            took = (time.perf_counter() - self._since) / len(self._rows)
            self._cache.add(list(self._rows), features, np.stack(logits) if logits else None, took)
        self._rows, self._since = {}, time.perf_counter()


def _batches(
    model: PretrainedModel, dataset: Images, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yield (n, C, H, W) float32 of images that threads decode ahead of the model."""

    def load(index: int) -> torch.Tensor:
        return model.preprocessing(dataset.image(index))

    groups = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    pool = ThreadPoolExecutor(_cores())
    ahead: deque[list[Future[torch.Tensor]]] = deque()
    try:
        for place, group in enumerate(groups):
            while len(ahead) < _AHEAD and place + len(ahead) < len(groups):
                ahead.append([pool.submit(load, index) for index in groups[place + len(ahead)]])
            yield group, torch.stack([future.result() for future in ahead.popleft()])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Runner:
    """A model on its device, which takes as many images at a time as its memory holds.

    Attributes:
        most: images of a pass.
        notes: what was done aloud.
    """

    def __init__(self, model: PretrainedModel, device: torch.device, most: int) -> None:
        self._model, self._device = model.eval().to(device), device
        if device.type == "cuda":
            self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.most = max(1, most)
        self.notes: list[str] = []

    def run(self, pixels: torch.Tensor) -> list[Row]:
        """Compute the rows of a batch.

        Args:
            pixels: (n, C, H, W) float32 on the CPU.
        """
        rows: list[Row] = []
        while len(rows) < len(pixels):
            part = pixels[len(rows) : len(rows) + self.most]
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what a network prints is not the program's answer
                    rows += self._pass(part)
            except (RuntimeError, MemoryError) as error:  # OutOfMemoryError is a RuntimeError
                if not _is_memory(error):
                    raise ModelUnavailableError(
                        f"{self._model.entry.where} can't be run: {' '.join(str(error).split())[:300]}"
                    ) from error
                if len(part) == 1:
                    raise ModelUnavailableError(
                        f"{self._model.entry.where}: the memory of {self._device} is too small for one image. Free "
                        "some, or take another device."
                    ) from error
                self.most = len(part) // 2
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
                self.notes.append(f"{self._device} has too little memory for {len(part)} images at a time; "
                                  f"{self.most} were taken")  # fmt: skip
        return rows

    @torch.inference_mode()
    def _pass(self, pixels: torch.Tensor) -> list[Row]:
        cuda = self._device.type == "cuda"
        layout = torch.channels_last if cuda else torch.contiguous_format
        with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
            computed = self._model.features(pixels.to(self._device, memory_format=layout))
            given = self._model.source_logits(computed)
        features = computed.float().cpu().numpy()  # a synchronisation: the batch is done
        logits = None if given is None else given.float().cpu().numpy()
        broken = ~np.isfinite(features).all(axis=1)
        if logits is not None:
            broken |= ~np.isfinite(logits).all(axis=1)
        if broken.any():
            raise ModelUnavailableError(
                f"{self._model.entry.where}: features or logits of {int(broken.sum())} of {len(features)} images are "
                "not finite: its weights or its input (mean, std) are not what it was trained with."
            )
        return [(row, None if logits is None else logits[place]) for place, row in enumerate(features)]


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
