"""Models of the Hugging Face hub that transformers builds: classifiers, and bodies without a head."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.hub_errors import hub_error
from data.pretrained.input_spec import InputSpec, Preprocessing
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.torchvision_import import import_torchvision
from data.pretrained.zoo_manifest import ZooEntry

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TOLERANCE = 1e-4  # of what an image processor gives, whose values are mostly from -3 to 3
_POOLERS = ("pooler.", "vision_model.pooler.", "vit.pooler.")


def load_hf(entry: ZooEntry) -> LoadedNetwork:
    """Build a model of the hub with its weights, and read from its image processor how it is fed.

    Args:
        entry: `identifier` is its id, `facebook/convnext-tiny-224`, with `@REVISION` if another than main is meant.

    Raises:
        ModelUnavailableError: there is no such model, it is no model of images, or its weights can't be had.
    """
    with contextlib.suppress(ModelUnavailableError):  # without torchvision Pillow does all
        import_torchvision()  # before transformers, which imports it, as it is
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelUnavailableError(
            f"{entry.where}: transformers can't be imported: {error}. Install what pretrained models need: "
            f"{sys.executable} -m pip install -r requirements-images.txt"
        ) from error
    repository, _, revision = entry.identifier.partition("@")
    where = {"revision": revision} if revision else {}
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(repository, **where)
            processor = transformers.AutoImageProcessor.from_pretrained(repository, backend="pil", **where)
            network = _build(transformers, repository, config, entry, where)
        except ModelUnavailableError:
            raise
        except Exception as error:  # of the network, the hub, transformers and the files
            raise _explained(error, entry, repository) from error
    spec = hf_input(processor, entry)
    heads = [f"model.{name}" for name in ("cls_classifier", "distillation_classifier")]
    two = all(hasattr(network.model, name.removeprefix("model.")) for name in heads)
    names = tuple(heads) if two else ("head",) if isinstance(network, _Body) else ()
    return LoadedNetwork(network.eval(), spec, names, _location(repository, revision),
                         f"transformers {transformers.__version__}")  # fmt: skip


class _Classifier(nn.Module):
    """A classifier of transformers that takes a tensor and gives one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits


class _Body(nn.Module):
    """A body of transformers, pooled, with a place for a head."""

    def __init__(self, model: nn.Module, has_pooler: bool) -> None:
        super().__init__()
        self.model, self.head, self._has_pooler = model, nn.Identity(), has_pooler

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None) if self._has_pooler else None
        if pooled is None:
            last = output.last_hidden_state
            pooled = last[:, 0] if last.ndim == 3 else last.flatten(2).mean(2)  # the class token, or all places
        features: torch.Tensor = self.head(pooled.flatten(1))
        return features


def _build(
    transformers: Any, repository: str, config: Any, entry: ZooEntry, where: dict[str, str]
) -> _Classifier | _Body:
    architecture = (config.architectures or [""])[0]
    is_classifier = "ForImageClassification" in architecture
    if not is_classifier and hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # a masked autoencoder hides three quarters of an image, by chance
    if architecture.endswith("WithTeacher"):
        maker = getattr(transformers, architecture)
    else:
        maker = transformers.AutoModelForImageClassification if is_classifier else transformers.AutoModel
    model, info = maker.from_pretrained(
        repository, config=config, output_loading_info=True, **where, **{"dtype": torch.float32, **entry.arguments}
    )
    missing = set(info["missing_keys"])
    no_pooler = {name for name in missing if name.startswith(_POOLERS)}
    if lacking := sorted(missing - no_pooler):
        raise ModelUnavailableError(
            f"{entry.where}: {repository} doesn't hold all weights of {type(model).__name__}: {len(lacking)} are "
            f"missing, such as {lacking[0]}. It was made for another class or another release of transformers."
        )
    return body_of(model, not no_pooler)


def body_of(model: nn.Module, has_pooler: bool = True) -> "_Classifier | _Body":
    """Return a model of transformers as a network that takes a tensor and gives one.

    Args:
        model: classifier, body, or model of text and images, of which only the part for images is kept.
        has_pooler: whether a body's own pooling has weights that were trained.
    """
    if "ForImageClassification" in type(model).__name__:
        return _Classifier(model)
    of_images: object = getattr(model, "vision_model", None)
    return _Body(of_images if isinstance(of_images, nn.Module) else model, has_pooler)


def hf_input(processor: Any, entry: ZooEntry) -> InputSpec:
    """Read how a model is fed from its image processor, and make sure that it is fed so.

    Args:
        processor: image processor of transformers, with its `pil` backend.
        entry: the model, for messages; its `input` counts where the processor's can't be said.

    Raises:
        ModelUnavailableError: the processor does what an `InputSpec` can't say.
    """
    try:
        spec = _spec_of(processor)
        off = max(_difference(processor, spec, shape) for shape in ((61, 90), (347, 261)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        spec, off = None, float("inf")
        reason = f"{type(error).__name__}: {error}"
    else:
        reason = f"a share of the pixels differs by up to {off:.2g}"
    if spec is not None and off <= _TOLERANCE:
        return spec
    if entry.input is not None:
        return entry.input
    raise ModelUnavailableError(
        f"{entry.where}: what the image processor {type(processor).__name__} of {entry.identifier} does can't be done "
        f"here ({reason}). Say in a manifest how the model is fed: `input: {{size: [H, W], mean: [..], std: [..]}}`."
    )


def _spec_of(processor: Any) -> InputSpec:
    size = processor.size
    shortest = size.get("shortest_edge") if hasattr(size, "get") else size
    crop = getattr(processor, "crop_pct", None)
    scale = (processor.rescale_factor if processor.do_rescale else 1.0) * 255
    mean, std = list(processor.image_mean or [0.0] * 3), list(processor.image_std or [1.0] * 3)
    if not processor.do_normalize:
        mean, std = [0.0] * 3, [1.0] * 3
    if getattr(processor, "rescale_offset", False):
        mean = [value + 1 for value in mean]
    if getattr(processor, "include_top", False):  # EfficientNet divides once more
        std = [value * more for value, more in zip(std, processor.image_std, strict=True)]
    rest: dict[str, Any] = {
        "mean": tuple(value / scale for value in mean), "std": tuple(value / scale for value in std),
        "interpolation": _FILTERS[int(processor.resample)], "centre": "down",
        "order": "bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb",
    }  # fmt: skip
    cut = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    if crop is not None and shortest and not cut and shortest >= 384:  # ConvNeXt
        return InputSpec((shortest, shortest), fit="stretch", **rest)
    if crop is not None and shortest and not cut:
        return InputSpec((shortest, shortest), crop=crop, resize=int(shortest / crop), **rest)
    if type(processor).__name__.startswith("Levit") and shortest and cut:
        side = int((256 / 224) * shortest)
        return InputSpec((cut["height"], cut["width"]), resize=side, crop=min(1.0, cut["height"] / side), **rest)
    if crop is not None and cut and shortest:  # PoolFormer
        side = int(shortest / crop)
        return InputSpec((cut["height"], cut["width"]), resize=side, crop=crop, **rest)
    if shortest:
        height, width = (cut["height"], cut["width"]) if cut else (shortest, shortest)
        return InputSpec((height, width), resize=shortest, crop=min(1.0, height / shortest), **rest)
    height, width = size["height"], size["width"]
    if cut and (cut["height"], cut["width"]) != (height, width):
        if height != width:
            raise ValueError(f"size {size} and crop_size {cut}")
        crop = min(1.0, cut["height"] / height)
        return InputSpec((cut["height"], cut["width"]), resize=height, crop=crop, fit="stretch", **rest)
    return InputSpec((height, width), fit="stretch", **rest)


def _difference(processor: Any, spec: InputSpec, shape: tuple[int, int]) -> float:
    """Return by how much our pixels differ from a processor's at most, for an image of noise."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((shape[1], shape[0]))
    theirs = torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))
    ours = Preprocessing(spec)(image)
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")


def _location(repository: str, revision: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name, revision=revision or None) for name in _FILES]
    return next((str(Path(path)) for path in found if isinstance(path, str)), f"https://huggingface.co/{repository}")


def _explained(error: Exception, entry: ZooEntry, repository: str) -> ModelUnavailableError:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return ModelUnavailableError(
            f"{entry.where}: {repository} needs code of its own, which isn't run. Download it, look at it, and name "
            "its class and its weights in a manifest (`module`, `weights`)."
        )
    if "size mismatch" in text or "mismatched" in text:
        return ModelUnavailableError(f"{entry.where}: the weights of {repository} don't fit: {text[:400]}")
    if isinstance(error, ValueError) and ("Unrecognized" in text or "image processor" in text):
        return ModelUnavailableError(
            f"{entry.where}: {repository} is no model of images that transformers knows: {text[:200]}"
        )
    return hub_error(error, entry, repository)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling on the terminal how far it has loaded."""
    from transformers.utils import logging as told

    before, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity(logging.ERROR)
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(before)
        if bars:
            told.enable_progress_bar()
