"""What a pretrained model was fed when it was trained, and the way from a photograph to that."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Names of the filters by which an image is resized: Pillow's."""
FITS = ("shorter", "stretch", "pad")
"""Ways from an image of any shape to the one that a model reads."""


@dataclass(frozen=True)
class InputSpec:
    """How a model wants to be fed.

    Attributes:
        size: (H, W) of the images that the model reads.
        channels: 3 for colour, 1 for grey.
        mean: number subtracted from pixels (from 0 to 1), one for each channel.
        std: number that pixels are divided by after the subtraction of `mean`, one for each channel.
        interpolation: filter of the resize, one of `INTERPOLATIONS`.
        crop: share of the resized image that is kept, from the centre (crop_pct of timm); 1 keeps all of it.
        fit: `shorter`: resize the shorter side, keep the middle. `stretch`: resize both sides, whatever the shape.
            `pad`: resize the longer side, fill the rest with the mean colour.
        resize: side that the image is resized to before the crop; None computes floor(size / crop).
        order: order of the colours, `rgb` or `bgr`.
        centre: what half a pixel of the crop's place is rounded to: `even` (torchvision, timm), `down` (transformers).
    """

    size: tuple[int, int]
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop: float = 1.0
    fit: Literal["shorter", "stretch", "pad"] = "shorter"
    resize: int | None = None
    order: Literal["rgb", "bgr"] = "rgb"
    centre: Literal["even", "down"] = "even"

    @property
    def resized(self) -> tuple[int, int]:
        """(H, W) that an image is resized to, or that its resized sides are measured by, before the crop."""
        if self.resize is not None:
            return self.resize, self.resize
        return math.floor(self.size[0] / self.crop), math.floor(self.size[1] / self.crop)

    def key(self) -> str:
        """Return text that is the same for two that feed a model the same pixels."""
        return repr(sorted(asdict(self).items()))


class Preprocessing:
    """From a photograph to what a model reads: (C, H, W) float32, to the bit what timm and torchvision make of it.

    Pillow resizes, as in their transforms of PIL images and in the `pil` image processors of transformers; those of
    transformers scale and normalise in numpy, which differs in the last bit (below 1e-6 of the result's scale).
    Instances can be pickled and used by several threads at a time.
    """

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self._mean = torch.tensor(spec.mean, dtype=torch.float32).view(-1, 1, 1)
        self._std = torch.tensor(spec.std, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, image: "Image") -> torch.Tensor:
        """Turn an image, RGB or any mode that Pillow converts to it, into (C, H, W) float32."""
        # Pillow's array shares no memory that may be written to.
        pixels = torch.from_numpy(np.array(self.cropped(image), dtype=np.uint8))
        pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None]
        if self.spec.order == "bgr":
            pixels = pixels.flip(0)
        return self.normalise(pixels)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 (..., C, H, W) of the right size and order into what the model reads, float32 and contiguous."""
        scaled = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return scaled.sub_(self._mean.to(scaled.device)).div_(self._std.to(scaled.device))

    def cropped(self, image: "Image") -> "Image":
        """Return the part of an image that the model sees, at its size: RGB, or L for a model of grey images."""
        spec = self.spec
        mode = "RGB" if spec.channels == 3 else "L"
        if image.mode != mode:
            image = image.convert(mode)
        resized = _resize(image, self._resized_sides(image), spec.interpolation)
        fill = tuple(round(255 * value) for value in spec.mean) if spec.fit == "pad" else (0,) * spec.channels
        return _centre(resized, spec.size, spec.centre, fill)

    def _resized_sides(self, image: "Image") -> tuple[int, int]:
        """Return (H, W) that an image is resized to."""
        width, height = image.size
        wanted = self.spec.resized
        if self.spec.fit == "stretch":
            return wanted
        if self.spec.fit == "shorter" and wanted[0] == wanted[1]:
            side = wanted[0]
            return (int(side * height / width), side) if width <= height else (side, int(side * width / height))
        ratios = (height / wanted[0], width / wanted[1])
        ratio = max(ratios) if self.spec.fit == "pad" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def _resize(image: "Image", sides: tuple[int, int], interpolation: str) -> "Image":
    from PIL import Image

    height, width = sides
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def _centre(image: "Image", size: tuple[int, int], rounding: str, fill: tuple[int, ...]) -> "Image":
    """Cut the middle (H, W) out of an image; where the image is smaller, lay it on the middle of a filled one."""
    from PIL import Image

    height, width = size
    if image.width < width or image.height < height:
        # Half a pixel goes to the left and to the top in torchvision's padding, to the right in that of transformers.
        more = 1 if rounding == "down" else 0
        left, top = max(0, (width - image.width + more) // 2), max(0, (height - image.height + more) // 2)
        canvas = Image.new(image.mode, (max(width, image.width), max(height, image.height)), _colour(fill))
        canvas.paste(image, (left, top))
        image = canvas
    spare = (image.width - width, image.height - height)
    left, top = (each // 2 if rounding == "down" else round(each / 2) for each in spare)
    return image if spare == (0, 0) else image.crop((left, top, left + width, top + height))


def _colour(fill: tuple[int, ...]) -> tuple[int, ...] | int:
    return fill if len(fill) > 1 else fill[0]
