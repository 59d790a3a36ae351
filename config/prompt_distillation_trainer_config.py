"""Settings of PromptDistillationTrainer: section `[PromptDistillationTrainer]` of config.ini."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from config.language_config import LanguageConfig
from constants import PACKAGE_ROOT

DataFormat = Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "chatml", "text"]
_LANGUAGE = PACKAGE_ROOT / "data" / "language"


@dataclass(kw_only=True)
class PromptDistillationTrainerConfig(LanguageConfig):
    """What `PromptDistillationTrainer` reads, beside the settings of every trainer of a language model."""

    # the prompts
    teacher_prompt: Path | None = _LANGUAGE / "captain_prompt.txt"
    """File of the teacher's system prompt, which the student is to do without."""
    student_prompt: Path | None = None
    """File of the student's system prompt; none for no prompt."""

    # the questions
    questions: Path = _LANGUAGE / "captain_questions.txt"
    """What the teacher is asked: a .jsonl, .json, .csv, .parquet or .txt file (a question a line), or a folder."""
    val_questions: Path | None = None
    """Questions to validate with; none takes val_share of the others."""
    val_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the questions to validate with, at least one, where there are no val_questions."""
    data_format: DataFormat = "auto"
    """What rows look like; auto finds it out and says so."""
    data_columns: str = ""
    """Names of columns that are called otherwise, such as `prompt=question`."""
    on_bad_row: Literal["skip", "stop"] = "skip"
    """What a row that can't be used does: it is left out and counted, or ends the run."""

    # the teacher's answers
    teacher_answers: Path | None = None
    """File of questions with answers that the teacher gave elsewhere, in place of asking it."""
    teacher_temperature: Annotated[float, Ge(0)] = 0.0
    """Temperature of the teacher's answers; 0 takes the likeliest token each time."""
    answers_per_question: Annotated[int, Gt(0)] = 1
    """Answers to each question, each sampled by itself."""
    answer_tokens: Annotated[int, Gt(0)] = 100
    """Most tokens of an answer."""
    teacher_seed: int = 0
    """Seed of the teacher's answers; not of the training, so that runs with other seeds share them."""
    cut_off: Literal["leave_out", "keep"] = "leave_out"
    """What becomes of answers that did not end within answer_tokens; those that are kept are learned without an end."""

    # training
    distill_on: Literal["answers", "logprobs"] = "answers"
    """answers: cross-entropy on the teacher's tokens. logprobs: KL(teacher || student) at each of them."""
    top_k: Annotated[int, Gt(0)] = 20
    """The teacher's likeliest tokens that logprobs looks at; all others are taken as one."""
    max_length: Annotated[int, Ge(0)] = 0
    """Most tokens of a row, the student's prompt and the answer; longer ones are left out. 0: the model's context."""
    epochs: Annotated[int, Gt(0)] = 4
    """Passes over the training data."""
    batch_size: Annotated[int, Gt(0)] = 8
    """Rows a batch; they lie end to end, without padding."""
    learning_rate: Annotated[float, Gt(0)] = 5e-4
    """Step size of AdamW at its peak."""

    # what is measured at the end
    compared_questions: Annotated[int, Ge(0)] = 100
    """Held-out questions, at most, that teacher, trained and untrained student answer at the end; 0 for none."""
