"""Teaches a language model to answer without a long prompt as it does with it: `python train.py PromptDistillation`."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import cast

import torch
from beautilog import logger

from config import ConfigParser
from config.prompt_distillation_trainer_config import PromptDistillationTrainerConfig
from data.batches import to_device
from data.text_preview import preview
from data.token_batches import TokenBatch, TokenBatches, pack_rows
from evaluation.answer_comparison import compared, compared_answers
from evaluation.text_metrics import perplexity_of
from llm.base_model import BaseModel, load
from llm.model_card import told_figures
from llm.sampling_settings import SampleRequest, SamplingSettings
from llm.teacher_answers import prompt_seconds
from model.adapted_causal_lm import LanguageModel, logprobs_where
from model.token_losses import cross_entropy, forward_kl_top_k
from storage.answer_journal import write_answers
from storage.errors import ResumeError
from train.base_trainer import BaseTrainer
from train.language.optimization import adamw, warmup_then_cosine
from train.language.samples import answer_rows, write_samples
from train.language.teacher import IDS, LOGPROBS, Pupil, Teacher
from train.language.token_clock import TokenClock
from train.language.trained_model import TrainedModel
from train.machine import peak_memory

ANSWERS = "teacher_answers.jsonl"  # of a run, in its folder
_TIMED = 3  # prompts whose reading is timed
_FIGURES = {
    "agreement": "share answered as the teacher answers",
    "chrf": "chrF with the teacher's answers",
    "answer_logprob": "log-probability of a token of the teacher's answers",
}


class PromptDistillationTrainer(BaseTrainer):
    """Teaches a language model to answer without a long prompt as it does with it.

    The teacher is the base model behind the prompt, the student the same model without it.
    """

    config: PromptDistillationTrainerConfig
    train_loader: TokenBatches
    val_loader: TokenBatches

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(PromptDistillationTrainerConfig)
        self.language = TrainedModel(config, self.device)
        of_run = self.options.resume is not None or self.options.evaluated is not None
        rehearsal = self.options.dry_run and self.options.evaluated is None
        own = self.run_folder.path / ANSWERS if of_run else None
        self.teacher = Teacher(config, self.language, own, rehearsal)
        rows, val_rows = self.teacher.rows()
        self.model = self.language.module
        pin = self.device.type == "cuda"
        self.train_loader = TokenBatches(rows, config.batch_size, shuffle=True, seed=config.seed, pin=pin)
        self.val_loader = TokenBatches(val_rows, config.batch_size, pin=pin)
        self.optimizer = adamw(config, self.model)
        self.scheduler = warmup_then_cosine(config, self.optimizer, len(self.train_loader))
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Distilling the prompt")
        self.clock = TokenClock()
        super().__init__()
        self._begin_folder()
        answers = [] if self.options.preview else self.teacher.lines()  # which says it where its rows are
        for line in [*self.language.lines(), *answers, self._told_prompts()]:
            logger.info(line)

    # ---------------------------------------------------------------------------------------------------- the loss

    def compute_loss(self, batch: TokenBatch) -> torch.Tensor:
        """Return the mean over the answers' tokens: their negative log-likelihood, or KL(teacher || student)."""
        if self.model.training and self.run_context.in_session:
            self.clock.note(len(batch.tokens))
        self._set_loss_count(torch.tensor(batch.total_weight))
        batch = to_device(batch, self.device)
        if self.config.distill_on == "answers":
            return cross_entropy(self.language.logprobs(batch, self.model), batch.weights) / batch.total_weight
        likeliest = dataclasses.replace(batch, targets=batch.of_trained[IDS].long())
        apart = forward_kl_top_k(self.language.logprobs(likeliest, self.model), batch.of_trained[LOGPROBS])
        return (batch.weights * apart).sum() / batch.total_weight

    def validate(self) -> float:
        """Return the validation loss; where it is of answers, its perplexity enters the history too."""
        self.clock.pause()
        val_loss = super().validate()
        if self.config.distill_on == "answers":
            self.record.note({"val_perplexity": perplexity_of(val_loss)})
        return val_loss

    def preview(self, count: int, colour: bool) -> list[str]:
        """Show the first training rows as they are trained on.

        Args:
            count: number of rows.
            colour: mark what is trained on by colour; else by [brackets].
        """
        rows = self.train_loader.first_rows(count)
        lines = preview(rows, [*self.teacher.accounts.values()], self.language.renderer, count, colour)
        return [*self.teacher.counts.lines(), *lines]

    # ---------------------------------------------------------------------------------------------------- the state

    def get_extra_state(self) -> dict[str, object]:
        """Return which base model the weights belong to, and which answers they learn."""
        return self.language.state() | {"answers_digest": self.teacher.digest}

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Refuse another base model than the run's, or other answers.

        Raises:
            ResumeError: they are others.
        """
        self.language.require(state)
        if state["answers_digest"] != self.teacher.digest:
            raise ResumeError(
                "the teacher's answers are not those that the run began with: questions, prompts or settings have "
                f"changed, or {self.run_folder.path / ANSWERS} is gone and they were sampled anew. Put back what was "
                "there, or start a new run without --resume."
            )

    # ---------------------------------------------------------------------------------------------------- the end

    def after_training(self) -> None:
        """Compare the student with the teacher, and write the adapter, or the whole model, and samples."""
        self.model.eval()
        config, teacher = self.config, self.teacher
        accounts = {f"{split}_data": account.state() for split, account in teacher.accounts.items()}
        self.results |= {**accounts, "teacher_answers": dataclasses.asdict(teacher.counts)}
        self.results |= {"tokens_per_second": self.clock.rate(), "peak_memory_bytes": peak_memory(self.device)}
        if config.compared_questions:
            self._compare(self.teacher.held_out[: config.compared_questions])
        facts = {name: f"{account.source}; {account.used:,} questions" for name, account in teacher.accounts.items()}
        facts |= {"teacher_prompt": str(config.teacher_prompt or ""), "distill_on": config.distill_on}
        facts |= {"run": self.run_folder.id}
        facts |= told_figures(self.results)
        self.language.export(self.get_run_file_path, facts)
        rows = self.val_loader.first_rows(self.config.sample_count)
        write_samples(self.language, self.get_run_file_path, answer_rows(self.language, rows))

    def _compare(self, pupils: Sequence[Pupil]) -> None:
        """Measure held-out questions, answered by the likeliest tokens, and how likely the teacher's answers are."""
        language, teacher, results = self.language, self.teacher, self.results
        base = self._base_as_it_was()
        expected = teacher.greedy_texts(pupils, base)
        prompts = [pupil.student for pupil in pupils]
        before = teacher.base_texts(prompts, base)
        settings = SamplingSettings(temperature=0, max_tokens=self.config.answer_tokens)
        after = [text for (text,) in language.answers(
            [SampleRequest(prompt, settings, adapter=language.sampled) for prompt in prompts])]  # fmt: skip
        found = compared_answers(before, after, expected, with_chrf=_has_sacrebleu())
        found |= compared("answer_logprob", *self._answer_logprobs(base))
        results |= {"compared_questions": len(pupils), **found}
        student = sum(map(len, prompts)) / len(prompts)
        results["student_prompt_tokens"] = student
        if teacher.prompt:
            asked = [pupil.teacher for pupil in pupils]
            results["teacher_prompt_tokens"] = sum(map(len, asked)) / len(asked)
            results["prompt_tokens_saved"] = results["teacher_prompt_tokens"] - student
            seconds = [prompt_seconds(base, each[:_TIMED]) for each in (prompts, asked)]
            results["prompt_time_share"] = seconds[0] / seconds[1]
        for name in _FIGURES:
            if name in found:
                logger.info(_told(name, found))

    def _answer_logprobs(self, base: BaseModel) -> tuple[list[float], list[float]]:
        """Return of each held-out answer the mean log-probability of its tokens, before and after training."""
        before: list[float] = []
        after: list[float] = []
        loader, size = self.val_loader, self.config.batch_size
        rows = loader.first_rows(len(loader.dataset))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for some in (rows[begin : begin + size] for begin in range(0, len(rows), size)):
                batch = to_device(pack_rows(some), self.device)
                model = cast(LanguageModel, base.model)
                old = logprobs_where(model, batch.tokens, batch.rows, batch.targets, batch.places)
                new = self.language.logprobs(batch)
                for found, values in ((before, old), (after, new)):
                    found += [float(part.mean()) for part in values.split([row.trained for row in some])]  # synchronise
        return before, after

    def _base_as_it_was(self) -> BaseModel:
        """Return the model before training: the frozen one, or the one that was trained, loaded once more."""
        language = self.language
        if language.adapter is not None:
            return language.base
        base = load(self.config.base_model, self.device)
        return dataclasses.replace(base, template=language.base.template, end_ids=language.base.end_ids)

    # ---------------------------------------------------------------------------------------------------- its parts

    def _begin_folder(self) -> None:
        """Write what belongs to a run from its first moment: the model's record, and the teacher's answers."""
        self.language.write_record(self.run_folder.path)
        own, answers = self.run_folder.path / ANSWERS, self.teacher.given
        if answers and not own.exists():
            write_answers(own, answers)

    def _told_prompts(self) -> str:
        """Say how long the prompts are, and what is left out."""
        pupil = self.teacher.held_out[0]
        if not _has_sacrebleu() and self.config.compared_questions:
            logger.warning("chrF is not measured, as sacrebleu is not installed: pip install sacrebleu")
        teacher = f"{len(pupil.teacher):,}" if pupil.teacher else "an unknown number of"
        return f"prompt with a question: the teacher reads {teacher} tokens, the student {len(pupil.student):,}"


def _has_sacrebleu() -> bool:
    return importlib.util.find_spec("sacrebleu") is not None


def _told(name: str, found: dict[str, float]) -> str:
    """Write a figure with what it was before."""
    low, high = found.get(f"{name}_gain_low"), found.get(f"{name}_gain_high")
    interval = "" if low is None or high is None else f" (95 % interval {low:+.3g} to {high:+.3g})"
    return (
        f"held-out questions, {_FIGURES[name]}: {found[name]:.4g}, before training {found[f'{name}_before']:.4g}, "
        f"gain {found[f'{name}_gain']:+.4g}{interval}"
    )
