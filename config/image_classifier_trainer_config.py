"""Settings of ImageClassifierTrainer: section `[ImageClassifierTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.base_trainer_config import BaseTrainerConfig


@dataclass(kw_only=True)
class ImageClassifierTrainerConfig(BaseTrainerConfig):
    """What `ImageClassifierTrainer` reads, beside the settings of every trainer."""

    # the data
    data: Path | None = None
    """Images with their classes: a folder with a sub-folder for each class, a .csv or .parquet file, or an .npz."""
    labels: str | None = None
    """Column of a CSV or Parquet file that holds the class; none finds it by its usual names."""
    images: str | None = None
    """Column of a CSV or Parquet file that holds the image, or the path of its file; none finds it."""
    max_images: Annotated[int, Ge(0)] = 0
    """Most images to read, drawn evenly over the classes; 0 reads all."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.15
    """Share of the images to validate on, of each class, where the data has no part of that name."""
    test_share: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Share of the images that --test measures on, of each class, where the data has no such part; 0 for none."""
    split_seed: Annotated[int, Ge(0)] = 0
    """What decides which images are set apart; apart from `seed`, so that runs of several seeds have the same test."""
    predict_data: Path | None = None
    """Images that --predict writes about, with or without classes: a folder or a file; none takes the test images."""

    # the model
    model: str = "timm/resnet18.a1_in1k"
    """The pretrained model: timm/NAME, hf/ORG/NAME, torchvision/NAME, package.module:Class, or a name in `zoo`."""
    zoo: Path | None = None
    """Manifest of models in which `model` is looked for first (docs/recommending_models.md); `hub`: the shipped one."""
    tune: Literal["full", "head", "lora"] = "full"
    """What is trained: full, all weights; head, the last layer over a frozen body; lora, low-rank changes and head."""
    lora_rank: Annotated[int, Gt(0)] = 8
    """Rank of the changes of each layer, with tune = lora."""
    lora_alpha: Annotated[float, Gt(0)] = 16.0
    """The changes' scale is this divided by the rank."""
    batch_statistics: Literal["auto", "on", "off"] = "auto"
    """Whether batch norms of a body that is trained take mean and variance from the batch, or keep those that they were
    pre-trained with; auto: on from 1,000 training images on."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """Whether images lie in memory with their colours together, which GPUs are faster with; auto: on CUDA."""

    # training
    epochs: Annotated[int, Gt(0)] = 10
    """Passes over the training images."""
    batch_size: Annotated[int, Gt(0)] = 32
    """Images a batch."""
    learning_rate: Annotated[float, Gt(0)] = 3e-4
    """Step size of AdamW at its peak, of the layers before the head."""
    head_rate_factor: Annotated[float, Gt(0)] = 10.0
    """How many times `learning_rate` the head learns with, which is new; and what tune = lora adds."""
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 0.85
    """Factor of the learning rate from one group of layers to the one before it; 1: all learn alike."""
    weight_decay: Annotated[float, Ge(0)] = 0.02
    """Weight decay of matrices and convolutions; norms, biases and what is added to tokens have none."""
    warmup_share: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of the optimizer steps in which the learning rate rises; then it falls along a cosine to 0."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight of each image in the training loss: balanced, that all classes together weigh the same."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes, in training."""

    # augmentation
    augmentation: Literal["none", "light", "randaugment", "trivialaugment"] = "light"
    """How training images are changed: light, a random part of the image, resized, and mirrored half the time; the
    others do that and then what their papers say."""
    mirror: bool = True
    """Whether augmentation mirrors images; off where left and right differ, such as for text."""
    least_part: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Least share of an image's area that augmentation leaves."""
    mixup: Annotated[float, Ge(0)] = 0.0
    """Alpha of mixup (images added to others, with their classes); 0 for none, 0.2 is usual."""
    cutmix: Annotated[float, Ge(0)] = 0.0
    """Alpha of CutMix (a part of another image pasted in); 0 for none, 1 is usual. With mixup: each for half."""

    # machine
    cache_mb: Annotated[int, Ge(0)] = 1024
    """Memory for images that have been read, so that they are not decoded again in each epoch; 0 for none."""

    # what is left of a run
    worst_images: Annotated[int, Ge(0)] = 24
    """Validation images with the highest loss that the report shows."""
