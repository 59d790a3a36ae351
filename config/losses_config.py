"""Settings of measuring the loss of each row, `--losses`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge


@dataclass(kw_only=True)
class LossesConfig:
    """What measuring the loss of each row reads."""

    data: Path | None = None
    """Rows to measure, in any format of train_data."""
    compare: bool = False
    """Whether the base model's losses are written too."""
    words: bool = False
    """Whether the loss of each word is written too."""
    attribution: Annotated[int, Ge(0)] = 0
    """Points of the path over which integrated gradients say what each word of a prompt does to its answer; 0 for none.
    32 are enough for most."""
    attention: bool = False
    """Whether it is written what share of their attention the tokens that predict an answer give each word."""
    device: str = "auto"
    """Where the model computes: auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the base model's weights; auto takes the training's."""
