"""Fixed encoders of images: what dataset tokens are made of. Nothing here is trained.

The default, `GradientEncoder`, has no weights that could have seen a domain, runs on any machine and needs no
download: coarse grey levels and histograms of oriented gradients, the classic description of small grey images. Another
is one line of config.ini: `encoder = package.module:Class`, a class that is called without arguments and whose objects
map images (n, 12, 12) uint8 to features (n, D) float32.
"""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from config import ConfigError

ImageEncoder = Callable[[np.ndarray], torch.Tensor]


class GradientEncoder:
    """Grey levels averaged over 3x3 blocks, and gradient energy by orientation (HOG: Dalal and Triggs, CVPR 2005).

    `__call__` maps images (n, H, W) uint8 to (n, 16 + 128 + 128) float32: 4x4 grey levels, then for one-pixel and
    two-pixel gradients 4x4 cells of 8 orientations. Square roots of energies, so that one strong edge doesn't hide the
    rest.
    """

    orientations = 8
    cells = 4

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Encode images."""
        grey = torch.from_numpy(np.ascontiguousarray(images)).float().div(255)[:, None]  # (n, 1, H, W)
        parts = [F.adaptive_avg_pool2d(grey, self.cells).flatten(1)]
        for spacing in (1, 2):
            parts.append(self._gradients(grey, spacing))
        return torch.cat(parts, dim=1)

    def _gradients(self, grey: torch.Tensor, spacing: int) -> torch.Tensor:
        padded = F.pad(grey, (spacing,) * 4, mode="replicate")
        across = padded[..., spacing:-spacing, 2 * spacing :] - padded[..., spacing:-spacing, : -2 * spacing]
        down = padded[..., 2 * spacing :, spacing:-spacing] - padded[..., : -2 * spacing, spacing:-spacing]
        strength = (across.square() + down.square()).sqrt()
        # Signed direction in turns of 0 to `orientations`, shared between the two nearest bins.
        turn = torch.atan2(down, across) * (self.orientations / (2 * torch.pi)) % self.orientations
        bins = torch.arange(self.orientations).view(1, -1, 1, 1)
        apart = (turn - bins).abs()
        weight = (1 - torch.minimum(apart, self.orientations - apart)).clamp(min=0)
        return F.adaptive_avg_pool2d(strength * weight, self.cells).sqrt().flatten(1)


class ClipEncoder:
    """Image features of CLIP (Radford et al. 2021) by the package `transformers`, which users install themselves.

    Args:
        checkpoint: name or folder of the weights.
    """

    def __init__(self, checkpoint: str = "openai/clip-vit-base-patch32") -> None:
        try:
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise ConfigError(
                [f"encoder = data.image_encoder:ClipEncoder needs `pip install transformers pillow` ({error})."]
            ) from error
        try:
            self._model = CLIPModel.from_pretrained(checkpoint, use_safetensors=True).eval()
            self._processor = CLIPProcessor.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError([f"the CLIP weights {checkpoint} can't be loaded: {reason}"]) from error

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Encode images (n, H, W) uint8 as (n, 512) float32."""
        from PIL import Image

        pictures = [Image.fromarray(image).convert("RGB") for image in images]
        inputs = self._processor(images=pictures, return_tensors="pt")
        features = self._model.get_image_features(**inputs)
        return getattr(features, "pooler_output", features).float()  # newer releases wrap the tensor


def load_encoder(spec: str) -> ImageEncoder:
    """Make the encoder that a setting names.

    Args:
        spec: address of the encoder's class, `package.module:Class`.

    Raises:
        ConfigError: there is no such class, or it can't be made.
    """
    module_name, colon, class_name = spec.partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError([f"encoder = '{spec}' must name a class: package.module:Class"])
    try:
        encoder_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: a relative name
        raise ConfigError([f"encoder = '{spec}' can't be loaded: {error}"]) from error
    try:
        return encoder_class()
    except TypeError as error:  # no class, or one that wants arguments
        raise ConfigError([f"encoder = '{spec}' can't be made: {error}"]) from error
