"""A network with a head for some classes, fed with the bytes of images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class ImageClassifier(nn.Module):
    """A network behind the normalisation that it was trained with.

    Args:
        network: network that maps (n, C, H, W) float32 to logits (n, classes).
        mean: number for each channel that is subtracted from pixels (0 to 1).
        std: number for each channel that pixels are divided by then.
        frozen: whether the body stays as it is: its norms then use the statistics that they have, and nothing of it
            is dropped at random.
        fixed_statistics: whether batch norms use the mean and variance that they have in training too, where few images
            say little of them.
        channels_last: whether images lie in memory with their colours together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], frozen: bool, fixed_statistics: bool,
        channels_last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format) if channels_last else network
        self.frozen, self.fixed_statistics = frozen, fixed_statistics
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "ImageClassifier":
        """Change to training, or to evaluation; of a frozen body nothing changes."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        elif self.fixed_statistics:
            for module in self.network.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.eval()
        return self

    def normalised(self, images: Tensor) -> Tensor:
        """Turn bytes (n, H, W, C) into what the network reads, (n, C, H, W) float32."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.memory_format)
        return pixels.div_(255).sub_(self.mean).div_(self.std)

    def forward(self, images: Tensor, keep: Tensor | None = None, box: Tensor | None = None) -> Tensor:
        """Return logits (n, classes).

        Args:
            images: bytes (n, H, W, C).
            keep: share that each image keeps of itself, (n,); the rest is of the image before it. None mixes nothing.
            box: part (top, bottom, left, right) of each image that is of the image before it, (n, 4).
        """
        pixels = self.normalised(images)
        if keep is not None and box is not None:
            pixels = mixed(pixels, keep, box)
        logits: Tensor = self.network(pixels)
        return logits


def mixed(pixels: Tensor, keep: Tensor, box: Tensor) -> Tensor:
    """Mix each image with the one before it in the batch, the first with the last.

    Args:
        pixels: images (n, C, H, W).
        keep: share that each image keeps of itself outside of its box, (n,).
        box: rows from `top` to before `bottom`, columns from `left` to before `right`, that are of the other, (n, 4).
    """
    top, bottom, left, right = (edge.view(-1, 1, 1) for edge in box.unbind(1))
    rows = torch.arange(pixels.shape[2], device=pixels.device).view(1, -1, 1)
    columns = torch.arange(pixels.shape[3], device=pixels.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # (n, H, W)
    weight = keep.view(-1, 1, 1).masked_fill(inside, 0.0)[:, None]
    return torch.lerp(pixels.roll(1, 0), pixels, weight)


def kept_share(keep: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which share of each mixed image is its own, (n,): the weight of its class in the loss.

    Args:
        keep: share outside of the box, (n,).
        box: part that is of the other image, (n, 4): top, bottom, left, right.
        size: (H, W) of the images.
    """
    top, bottom, left, right = box.unbind(1)
    return keep * (1 - (bottom - top) * (right - left) / (size[0] * size[1]))


def classification_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0,
    share: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the weighted mean cross-entropy, a scalar, and the sum of the weights, which it is a mean over.

    Args:
        logits: (n, classes).
        labels: (n,) int64.
        class_weights: weight of each class, (classes,); None weighs all samples alike.
        smoothing: share of the target that is spread evenly over all classes.
        share: share of each sample's own class in its target, (n,); the rest is the class of the sample before it, as
            `mixed` mixes. None leaves the targets alone.
    """
    log_probabilities = logits.float().log_softmax(1)
    spread = log_probabilities.mean(1)

    def weighted(classes: Tensor) -> tuple[Tensor, Tensor]:
        loss = -(1 - smoothing) * log_probabilities.gather(1, classes[:, None])[:, 0] - smoothing * spread
        weight = torch.ones_like(loss) if class_weights is None else class_weights[classes]
        return weight * loss, weight

    loss, weight = weighted(labels)
    if share is not None:
        other_loss, other_weight = weighted(labels.roll(1))
        loss, weight = torch.lerp(other_loss, loss, share), torch.lerp(other_weight, weight, share)
    total = weight.sum()
    return loss.sum() / total, total.detach()
