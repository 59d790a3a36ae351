"""Settings of PreferenceTrainer: section `[PreferenceTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.language_config import LanguageConfig
from constants import PACKAGE_ROOT


@dataclass(kw_only=True)
class PreferenceTrainerConfig(LanguageConfig):
    """What `PreferenceTrainer` reads, beside the settings of every trainer of a language model."""

    # the data
    train_data: Path = PACKAGE_ROOT / "data" / "language" / "captain_preferences.jsonl"
    """Rows with `chosen` and `rejected` to train on: a .jsonl, .json, .csv or .parquet file, or a folder of them."""
    val_data: Path | None = None
    """Rows to validate on; none takes val_share of train_data."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Share of train_data's questions to validate on, at least one, where there is no val_data."""
    data_columns: str = ""
    """Names of columns that are called otherwise, such as `prompt=question, rejected=worse`."""
    on_bad_row: Literal["skip", "stop"] = "skip"
    """What a row that can't be used does: it is left out and counted, or ends the run."""
    max_length: Annotated[int, Ge(0)] = 0
    """Most tokens of a question with an answer; pairs with a longer one are left out. 0 takes the model's context."""

    # what is learned
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """sigmoid: DPO as it was published. ipo: the margin is drawn to 1 / (2 beta), per token. hinge: as SLiC."""
    beta: Annotated[float, Gt(0)] = 0.1
    """How strongly the model is kept near to what it was."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=0.5)] = 0.0
    """Share of the pairs whose preference is taken to be the wrong way round (loss = sigmoid)."""
    chosen_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the chosen answers' own negative log-likelihood per token, which keeps them likely (RPO)."""

    # training
    epochs: Annotated[int, Gt(0)] = 3
    """Passes over the training data."""
    batch_size: Annotated[int, Gt(0)] = 8
    """Pairs a batch; their answers lie end to end, without padding."""
    learning_rate: Annotated[float, Gt(0)] = 1e-4
    """Step size of AdamW at its peak."""
