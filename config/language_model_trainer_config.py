"""Settings of LanguageModelTrainer: section `[LanguageModelTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.language_config import LanguageConfig
from constants import PACKAGE_ROOT

DataFormat = Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "chatml", "text"]


@dataclass(kw_only=True)
class LanguageModelTrainerConfig(LanguageConfig):
    """What `LanguageModelTrainer` reads, beside the settings of every trainer of a language model."""

    # the data
    train_data: Path = PACKAGE_ROOT / "data" / "language" / "captain.jsonl"
    """Rows to train on: a .jsonl, .json, .csv, .parquet or .txt file, or a folder of them."""
    val_data: Path | None = None
    """Rows to validate on; none takes val_share of train_data."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Share of train_data's rows to validate on, at least one, where there is no val_data."""
    data_format: DataFormat = "auto"
    """What rows look like; auto finds it out and says so."""
    data_columns: str = ""
    """Names of columns that are called otherwise, such as `prompt=question, completion=answer`."""
    on_bad_row: Literal["skip", "stop"] = "skip"
    """What a row that can't be used does: it is left out and counted, or ends the run."""
    train_on: Literal["answers", "all"] = "answers"
    """answers: what assistants say, and the end of their turn. all: every token."""
    max_length: Annotated[int, Ge(0)] = 0
    """Most tokens of a row: longer conversations are left out and counted, longer texts cut into pieces. 0 takes the
    model's context."""

    # training
    epochs: Annotated[int, Gt(0)] = 3
    """Passes over the training data."""
    batch_size: Annotated[int, Gt(0)] = 8
    """Rows a batch; they lie end to end, without padding."""
    learning_rate: Annotated[float, Gt(0)] = 5e-4
    """Step size of AdamW at its peak."""
