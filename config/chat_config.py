"""Settings of a chat with a model, `--chat`: section `[Chat]` of config.ini, where there is one."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval


@dataclass(kw_only=True)
class ChatConfig:
    """What a chat reads; its commands change most of it."""

    temperature: Annotated[float, Ge(0)] = 0.3
    """0 takes the likeliest token each time; 1 draws from the model as it is."""
    top_p: Annotated[float, Interval(gt=0, le=1)] = 0.9
    """Share of the probability whose likeliest tokens may be drawn."""
    top_k: Annotated[int, Ge(0)] = 0
    """How many of the likeliest tokens may be drawn; 0 for all."""
    max_tokens: Annotated[int, Ge(0)] = 0
    """Most tokens of an answer; 0 for what the context has room for."""
    seed: int | None = None
    """Draws the same answers each time; none for others each time."""
    system: str = ""
    """System message of conversations; empty for none."""
    compare: bool = False
    """Whether the base model's answer is shown too."""
    device: str = "auto"
    """Where the model computes: auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the base model's weights; auto takes the training's."""
