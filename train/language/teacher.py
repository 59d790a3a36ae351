"""The teacher of a prompt distillation: the base model behind a prompt, what it answers, and rows of that."""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from beautilog import logger

from config import ConfigError
from config.prompt_distillation_trainer_config import PromptDistillationTrainerConfig
from constants.counting import counted
from data.chat_messages import Completion, Conversation, RowError
from data.chat_renderer import RenderNotes
from data.conversations import Row, open_source, parse_columns
from data.data_error import DataError
from data.held_out import set_apart
from data.questions import Question, behind, read_questions, without_system
from data.token_row import TokenRow
from data.token_rows import RowAccount
from llm.base_model import TINY, BaseModel
from llm.sampling_settings import SamplingSettings
from llm.teacher_answers import AnswerProgress, Asked, BaseAnswers
from llm.teacher_logprobs import likeliest_of_answers
from storage.answer_journal import WHOLE, KeptAnswer
from train.language.trained_model import TrainedModel

IDS, LOGPROBS = "teacher_ids", "teacher_logprobs"  # what rows have of each trained token, where distill_on = logprobs
_FEWEST_ASKED = 8  # questions that are answered where nothing is trained
_TELL_SECONDS, _TELL_RARELY = 5.0, 60.0


@dataclass
class Pupil:
    """A question as teacher and student read it, and the teacher's answers that are trained on.

    Attributes:
        question: the question.
        teacher: token ids of the teacher's prompt; empty where there is none.
        student: token ids of the student's prompt.
        answers: answers that are used.
    """

    question: Question
    teacher: tuple[int, ...]
    student: tuple[int, ...]
    answers: list[KeptAnswer] = field(default_factory=list)

    def rows(self) -> list[TokenRow]:
        """Return what the student is trained with: its prompt, and each answer as the teacher's ids."""
        return [
            TokenRow.of([*self.student, *each.tokens], [0.0] * len(self.student) + [1.0] * len(each.tokens), place)
            for place in [self.question.place]
            for each in self.answers
        ]


@dataclass
class AnswerCounts:
    """What became of a teacher's answers: asked = used + cut_off + empty + too_long.

    Attributes:
        asked: answers that were wanted.
        used: answers that are trained on or validated with.
        cut_off: answers that did not end within answer_tokens, and are left out.
        kept_cut_off: such answers that are used.
        empty: answers without a character.
        too_long: answers that don't fit into max_length with the student's prompt, or the context with the teacher's.
        repeated: used answers that are the same as another one to the same question.
        shared: used answers that are the same as one to another question.
        sampled: answers that were sampled now; the others were read.
        borrowed: questions that have the answer of another one, as nothing is trained.
    """

    asked: int = 0
    used: int = 0
    cut_off: int = 0
    kept_cut_off: int = 0
    empty: int = 0
    too_long: int = 0
    repeated: int = 0
    shared: int = 0
    sampled: int = 0
    borrowed: int = 0

    def lines(self) -> list[str]:
        """Write the counts for the log."""
        lost = {"cut off": self.cut_off, "empty": self.empty, "too long": self.too_long}
        left_out = "".join(f", {count:,} left out, {reason}" for reason, count in lost.items() if count)
        new = f", {self.sampled:,} of them sampled now" if self.sampled else ""
        lines = [f"the teacher's answers: {self.asked:,}{new} = {self.used:,} used{left_out}"]
        if self.kept_cut_off:
            lines.append(f"{counted(self.kept_cut_off, 'answer')} cut off at answer_tokens: trained on without an end")
        alike = {"another one to the same question": self.repeated, "one to another question": self.shared}
        for what, count in alike.items():
            if count:
                lines.append(f"{counted(count, 'answer')} the same as {what}: trained on as often")
        if self.borrowed:
            lines.append(f"{counted(self.borrowed, 'question')} not answered yet, as nothing is trained: they have the "
                         "answers of others")  # fmt: skip
        return lines


class Teacher:
    """A base model behind a prompt.

    Its attributes lie in slots: it is no part of a checkpoint (see `TrainedModel`).

    Args:
        config: settings of the run.
        language: the model under training, whose base is the teacher.
        run: folder of a run whose own answers go first; None for none.
        rehearsal: whether nothing is trained: then a few questions are answered, and the others borrow.

    Attributes:
        prompt: the teacher's prompt, a system message; empty where it is not known.
        student_prompt: the student's; empty for none.
        accounts: of each split what became of its rows.
        counts: what became of the answers.
        held_out: the questions to validate with.
        given: all answers that were sampled or read, those that are left out too, for the run's folder.
        digest: digest of all rows that were made.

    Raises:
        ConfigError: settings that don't go together.
        DataError: a prompt can't be read.
    """

    __slots__ = ("_answers", "_config", "_language", "_rehearsal", "_said", "accounts", "counts", "digest", "given",
                 "held_out", "prompt", "student_prompt")  # fmt: skip

    def __init__(
        self,
        config: PromptDistillationTrainerConfig,
        language: TrainedModel,
        run: Path | None = None,
        rehearsal: bool = False,
    ) -> None:
        self._config, self._language, self._rehearsal = config, language, rehearsal
        self.prompt = _text(config.teacher_prompt, "teacher_prompt")
        self.student_prompt = _text(config.student_prompt, "student_prompt")
        self._check()
        self.accounts: dict[str, RowAccount] = {}
        self.counts = AnswerCounts()
        self.held_out: list[Pupil] = []
        self.digest = ""
        self._said: dict[str, tuple[int, ...]] = {}
        self.given: list[KeptAnswer] = []
        settings = SamplingSettings(
            temperature=config.teacher_temperature, max_tokens=config.answer_tokens, seed=config.teacher_seed
        )
        self._answers = self._asker(language.base, settings, run)

    # ------------------------------------------------------------------------------------------------------ the rows

    def rows(self) -> tuple[list[TokenRow], list[TokenRow]]:
        """Return the rows to train on, and those to validate with; the teacher is asked what it was not asked yet.

        Raises:
            DataError: no question, or no answer that can be used.
            EngineError: the teacher can't answer.
        """
        train, self.held_out = self._pupils()
        rows, val_rows = (self._rows_of(pupils) for pupils in (train, self.held_out))
        whole = hashlib.sha256()
        for row in (*rows, *val_rows):
            whole.update(row.ids.numpy().tobytes() + row.weights.numpy().tobytes())
        self.digest = whole.hexdigest()
        self._answers.forget()
        return rows, val_rows

    def _pupils(self) -> tuple[list[Pupil], list[Pupil]]:
        config = self._config
        if config.teacher_answers is not None:
            return self._split(self._told(config.teacher_answers))
        train = self._asked("train", config.questions)
        if config.val_questions is None:
            self._answer(train)
            return self._split(train)
        val = self._asked("val", config.val_questions)
        self._answer([*train, *val])
        return self._usable("train", train), self._usable("val", val)

    def _rows_of(self, pupils: Sequence[Pupil]) -> list[TokenRow]:
        rows = [row for pupil in pupils for row in pupil.rows()]
        return rows if self._config.distill_on == "answers" else self._with_likeliest(pupils, rows)

    # ---------------------------------------------------------------------------------------- answers to compare with

    def greedy_texts(self, pupils: Sequence[Pupil], base: BaseModel) -> list[str]:
        """Return the teacher's likeliest answer to each question; of a file of answers what it has.

        Args:
            pupils: the questions.
            base: the base model with the weights that it had before training.
        """
        if self._config.teacher_answers is not None:
            return [pupil.answers[0].text for pupil in pupils]
        return self.base_texts([pupil.teacher for pupil in pupils], base)

    def base_texts(self, prompts: Sequence[tuple[int, ...]], base: BaseModel) -> list[str]:
        """Return the base model's likeliest answers.

        Args:
            prompts: token ids.
            base: the base model with the weights that it had before training.
        """
        settings = SamplingSettings(temperature=0, max_tokens=self._config.answer_tokens)
        asker = self._asker(base, settings)
        found = asker.answers([Asked(prompt) for prompt in prompts], tell=_Teller("the base model"))
        asker.forget()
        return [answer.text for (answer,) in found]

    def lines(self) -> list[str]:
        """Say what the teacher is and what it answered, for the log."""
        lines = [line for account in self.accounts.values() for line in account.lines()]
        lines += self.counts.lines()
        if self._config.teacher_answers is None and not self._rehearsal:
            lines.append(f"they are kept for other runs in {self._answers.journal.file}")
            if self._answers.damaged:
                lines.append(f"{counted(self._answers.damaged, 'line')} of it can't be read: answered again")
        return lines

    # ----------------------------------------------------------------------------------------------------- questions

    def _check(self) -> None:
        config, wrong = self._config, []
        told = config.teacher_answers is not None
        if not self.prompt and not told:
            wrong.append("teacher_prompt is empty: there is nothing to distil. Name a file with the teacher's prompt")
        if self.prompt and self.prompt == self.student_prompt:
            wrong.append("teacher_prompt and student_prompt are the same: there is nothing to distil")
        if not self.prompt and config.distill_on == "logprobs":
            wrong.append("distill_on = logprobs needs teacher_prompt, behind which the base model measures the answers")
        if told and config.val_questions is not None:
            wrong.append("val_questions has no answers, and teacher_answers is what the teacher said: leave one of "
                         "them empty (val_share of teacher_answers is validated with)")  # fmt: skip
        if config.answers_per_question > 1 and told:
            wrong.append("answers_per_question is for answers that are sampled; teacher_answers has as many as it has")
        if config.answers_per_question > 1 and config.teacher_temperature == 0:
            wrong.append(
                f"answers_per_question = {config.answers_per_question} with teacher_temperature = 0 would be the same "
                "answer again and again: give a temperature, such as 1"
            )
        base = self._language.base
        if config.max_length > base.context:
            wrong.append(f"max_length = {config.max_length}: the context of {base.source} is {base.context} tokens")
        if config.distill_on == "logprobs" and config.top_k > base.vocabulary:
            wrong.append(f"top_k = {config.top_k}: the vocabulary of {base.source} has {base.vocabulary} tokens")
        if wrong:
            raise ConfigError(wrong)

    @property
    def _reads_prompt(self) -> bool:
        """Whether the base model reads the teacher's prompt; else its length is told, no more."""
        return self._config.teacher_answers is None or self._config.distill_on == "logprobs"

    def _asker(self, base: BaseModel, settings: SamplingSettings, run: Path | None = None) -> BaseAnswers:
        folder, pack = self._config.artifacts_dir / "teacher_answers", self._language.adapter is not None
        return BaseAnswers(base, settings, folder, run, keep=not self._rehearsal, pack=pack)

    def _asked(self, split: str, path: Path) -> list[Pupil]:
        """Read questions, and render them for teacher and student."""
        config = self._config
        source = open_source(path, config.data_format, parse_columns(config.data_columns), answers=False)
        questions, account = read_questions(source, config.on_bad_row)
        self.accounts[split] = account
        pupils = []
        for question in questions:
            try:
                pupils.append(self._pupil(question, account))
            except RowError as error:
                account.refuse(path, question.place, error, config.on_bad_row)
        if not pupils:
            raise DataError(f"{path}: no question can be asked. {account.reasons()}.")
        return pupils

    def _pupil(self, question: Question, account: RowAccount) -> Pupil:
        renderer, context = self._language.renderer, self._language.base.context
        notes = RenderNotes()
        teacher = tuple(renderer.prompt(question.after(self.prompt))) if self.prompt else ()
        student = tuple(renderer.prompt(question.after(self.student_prompt), notes))
        if len(teacher) >= context and self._reads_prompt:
            raise RowError("the teacher's prompt with the question leaves no room for an answer",
                           f"{len(teacher):,} tokens of {context:,}")  # fmt: skip
        for note in notes.counts:
            account.notes.setdefault(f"student: {note}", []).append(question.place)
        return Pupil(question, teacher, student)

    def _told(self, path: Path) -> list[Pupil]:
        """Read questions with the answers that a teacher gave elsewhere."""
        config = self._config
        source = open_source(path, config.data_format, parse_columns(config.data_columns))
        account = self.accounts["train"] = RowAccount(source.told(), digest=source.files.digest())
        pupils = []
        for row in source.rows():
            account.read += 1
            try:
                pupils.append(self._told_pupil(row, account))
            except RowError as error:
                account.refuse(path, row.place, error, config.on_bad_row)
        if not pupils:
            raise DataError(f"{path}: no answer can be used. {account.reasons()}.")
        for pupil in pupils:
            self._choose(pupil, pupil.answers)
        return pupils

    def _told_pupil(self, row: Row, account: RowAccount) -> Pupil:
        chat, text = _answered(row)
        pupil = self._pupil(Question(row.place, Conversation(chat.messages[:-1], chat.tools)), account)
        only_last = Conversation(chat.messages, chat.tools, (False,) * (len(chat.messages) - 1) + (True,))
        rows = self._language.renderer.train_rows(behind(self.student_prompt, only_last), row.place)
        if not rows or not rows[0].trained:
            raise RowError("the template shows nothing of the answer")
        ids = rows[0].needed().ids.tolist()
        start = int(rows[0].weights.nonzero()[0])
        pupil.student = tuple(ids[:start])
        pupil.answers = [KeptAnswer("", 0, tuple(ids[start:]), WHOLE, text)]
        return pupil

    # ------------------------------------------------------------------------------------------------------- answers

    def _answer(self, pupils: Sequence[Pupil]) -> None:
        """Give each question its answers."""
        config, number = self._config, self._config.answers_per_question
        asked = [Asked(pupil.teacher, _shown(pupil.question)) for pupil in pupils]
        chosen = list(range(len(pupils)))
        if self._rehearsal:
            kept = self._answers.known(asked)
            known = [n for n in chosen if all((asked[n].key, each) in kept for each in range(number))]
            new = [n for n in chosen if n not in set(known)]
            chosen = known + new[: max(0, max(_FEWEST_ASKED, config.batch_size) - len(known))]
        found = self._answers.answers([asked[n] for n in chosen], number, _Teller("the teacher"))
        self.counts.sampled = self._answers.sampled
        self.counts.borrowed = len(pupils) - len(chosen)
        self.given = list({(each.key, each.number): each for answers in found for each in answers}.values())
        given = dict(zip(chosen, found, strict=True))
        for n, pupil in enumerate(pupils):
            self._choose(pupil, given[n] if n in given else found[n % len(found)])

    def _choose(self, pupil: Pupil, answers: Sequence[KeptAnswer]) -> None:
        """Keep the answers that can be used, and count the others."""
        config, counts = self._config, self.counts
        context = self._language.base.context
        longest = config.max_length or context
        behind_prompt = len(pupil.teacher) if self._reads_prompt else 0
        pupil.answers = []
        said: set[tuple[int, ...]] = set()
        for each in answers:
            counts.asked += 1
            cut_off = each.finish != WHOLE
            if cut_off and config.cut_off == "leave_out":
                counts.cut_off += 1
            elif not each.text.strip():
                counts.empty += 1
            elif len(pupil.student) + len(each.tokens) > longest or behind_prompt + len(each.tokens) > context:
                counts.too_long += 1
            else:
                counts.used += 1
                counts.kept_cut_off += cut_off
                counts.repeated += each.tokens in said
                said.add(each.tokens)
                counts.shared += self._said.setdefault(each.text, pupil.student) != pupil.student
                pupil.answers.append(each)

    def _usable(self, split: str, pupils: Sequence[Pupil]) -> list[Pupil]:
        """Leave out questions without an answer, and close the account."""
        account = self.accounts[split]
        usable = [pupil for pupil in pupils if pupil.answers]
        for pupil in pupils:
            if not pupil.answers:
                account.leave_out(pupil.question.place, "no answer of the teacher's can be used")
        rows = [row for pupil in usable for row in pupil.rows()]
        account.used, account.rows = len(usable), len(rows)
        account.tokens, account.trained = sum(len(row.ids) for row in rows), sum(row.trained for row in rows)
        account.longest = max((len(row.ids) for row in rows), default=0)
        if not usable:
            raise DataError(self._nothing_left(split, pupils))
        return usable

    def _nothing_left(self, split: str, pupils: Sequence[Pupil]) -> str:
        counts, config = self.counts, self._config
        reasons = {
            f"did not end within answer_tokens = {config.answer_tokens}; give more, or cut_off = keep": counts.cut_off,
            f"are empty; teacher_temperature = {config.teacher_temperature:g}, a higher one gives others": counts.empty,
            f"are longer with their prompt than max_length = {config.max_length}, or the context": counts.too_long,
        }
        parts = [f"{count:,} of {counts.asked:,} {reason}" for reason, count in reasons.items() if count]
        asked = counted(len(pupils), "question")
        of = "" if split == "train" else " to validate with"
        advice = (
            " The random weights of base_model = tiny rarely end an answer, and at temperature 0 say one token again "
            "and again: try settings with it by teacher_temperature=1 cut_off=keep."
        )
        told = f"no answer of the teacher's to {asked}{of} can be used: {'; '.join(parts)}."
        return told + (advice if self._language.base.source.partition(":")[0] == TINY else "")

    def _split(self, pupils: Sequence[Pupil]) -> tuple[list[Pupil], list[Pupil]]:
        """Set questions apart for validation; the same question stays on one side."""
        usable = self._usable("train", pupils)
        asked = [pupil.student for pupil in usable]
        if len(set(asked)) < 2:
            raise DataError(
                f"{self.accounts['train'].source.partition(':')[0]}: the teacher's answers to "
                f"{counted(len(set(asked)), 'question')} can be used: none is left to validate with. Give more "
                "questions, or val_questions."
            )
        return set_apart(usable, asked, self._config.val_share, torch.Generator().manual_seed(self._config.seed))

    def _with_likeliest(self, pupils: Sequence[Pupil], rows: Sequence[TokenRow]) -> list[TokenRow]:
        """Add the teacher's likeliest tokens in place of each token of the answers."""
        pairs = [(pupil.teacher, each.tokens) for pupil in pupils for each in pupil.answers]
        if self._rehearsal:  # whoever borrows an answer borrows how it was measured
            owners: dict[tuple[int, ...], tuple[int, ...]] = {}
            pairs = [(owners.setdefault(tokens, prompt), tokens) for prompt, tokens in pairs]
        distinct = list(dict.fromkeys(pairs))
        teller = _Teller("the teacher")
        found = likeliest_of_answers(
            self._language.base, [prompt for prompt, _ in distinct], [tokens for _, tokens in distinct],
            self._config.top_k, tell=lambda done: teller.measured(done, len(distinct)),
        )  # fmt: skip
        likeliest = dict(zip(distinct, found, strict=True))
        return [
            dataclasses.replace(row, of_trained={IDS: likeliest[pair][0], LOGPROBS: likeliest[pair][1]})
            for row, pair in zip(rows, pairs, strict=True)
        ]


class _Teller:
    """Says how far the teacher has come: after five seconds, then ever more rarely."""

    def __init__(self, who: str) -> None:
        self._who, self._next, self._began = who, _TELL_SECONDS, time.monotonic()

    def __call__(self, progress: AnswerProgress) -> None:
        if self._due():
            rate = progress.tokens / progress.seconds if progress.seconds else 0.0
            left = f", about {progress.left:.0f} s left" if progress.left else ""
            logger.info(f"{self._who} has answered {progress.done:,} of {progress.total:,} ({rate:.0f} tokens/s{left})")

    def measured(self, done: int, total: int) -> None:
        if self._due():
            logger.info(f"{self._who}'s log-probabilities: {done:,} of {total:,} answers")

    def _due(self) -> bool:
        now = time.monotonic() - self._began
        if now < self._next:
            return False
        self._next = now + min(max(now, _TELL_SECONDS), _TELL_RARELY)
        return True


def _text(path: Path | None, setting: str) -> str:
    """Read a prompt; spaces and line feeds around it are no part of it."""
    if path is None:
        return ""
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{setting} = {path} can't be read: {reason}.") from error
    if not text:
        raise DataError(f"{setting} = {path} is empty: there is no prompt in it.")
    return text


def _shown(question: Question) -> dict[str, Any]:
    """Return what is asked, as columns of data to train on."""
    shown: dict[str, Any] = {"prompt": list(question.chat.messages)}
    return shown | ({"tools": list(question.chat.tools)} if question.chat.tools else {})


def _answered(row: Row) -> tuple[Conversation, str]:
    """Return a conversation whose last message is an answer, and its text."""
    example = row.example
    if isinstance(example, RowError):
        raise example
    if isinstance(example, Completion):
        messages = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion}]
        return Conversation.of(messages), example.completion
    if not isinstance(example, Conversation):
        raise RowError("a document has no question and answer")
    chat = without_system(example)
    last = max((n for n, each in enumerate(chat.messages) if each["role"] == "assistant"), default=-1)
    if last < 1:
        raise RowError("there is no question before the answer")
    return Conversation(chat.messages[: last + 1], chat.tools), str(chat.messages[last].get("content") or "")
