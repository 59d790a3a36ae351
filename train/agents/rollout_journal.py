"""What a batch of rollouts has come to so far, written down as it comes: a killed process loses none of it.

Three things are written: each answer of the model, which wave began clean (`train.agents.waves`), and each rollout that
has ended. Whoever reads this goes on from there: rollouts that have ended are not made again. Those that have not begin
anew, and get the answers that they had before the last clean wave without a model; what was sampled in that wave and
after it is sampled again, since neighbours count in the last bits: that of rollouts that have ended, too.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from beautilog import logger

from llm.sample_result import CANCELLED, FAILED, RecalledSample
from llm.sampling_settings import SampleRequest, SamplingSettings
from service.journal.journal_file import JournalError, packed, read_file
from service.sampling.sampling_loop import Ticket
from train.agents.rollout import Rollout, plain_of, rollout_of

_FORMAT = 1
_BEGIN, _ANSWER, _CLEAN, _END, _RESUMED = "begin", "answer", "clean", "end", "resumed"


@dataclass(frozen=True)
class Attempt:
    """One time that a rollout is made.

    Attributes:
        place: place of the rollout in the plan.
        number: how often it was made before.
    """

    place: int
    number: int = 0


@dataclass(frozen=True)
class JournalAnswer:
    """An answer of the model.

    Attributes:
        number: place among the requests of its attempt.
        wave: wave that it was sampled in; None without waves.
        version: id of the weights.
        request: what was asked.
        samples: what was sampled.
        prompt_logprobs: of each token of the prompt, where they were asked for.
        prompt_likeliest: of each token of the prompt, where they were asked for.
    """

    number: int
    wave: int | None
    version: str
    request: SampleRequest
    samples: tuple[RecalledSample, ...]
    prompt_logprobs: list[float | None] | None = None
    prompt_likeliest: list[list[tuple[int, float]] | None] | None = None

    @staticmethod
    def of(ticket: Ticket, wave: int | None) -> "JournalAnswer | None":
        """Make one of a request that has ended; None where it was not sampled to its end."""
        handle = ticket.handle
        if handle is None or any(sample.finish in (None, CANCELLED, FAILED) for sample in handle.samples):
            return None
        return JournalAnswer(
            ticket.number, wave, str(ticket.version), ticket.request, tuple(map(RecalledSample.of, handle.samples)),
            handle.prompt_logprobs, handle.prompt_likeliest,
        )  # fmt: skip

    def answers(self, request: SampleRequest) -> bool:
        """Say whether a request is the one that this was the answer to."""
        mine = self.request
        return (list(request.prompt), request.settings, request.samples) == (
            list(mine.prompt), mine.settings, mine.samples
        )  # fmt: skip


@dataclass
class _Open:
    """What is known of an attempt that has not ended.

    Attributes:
        answers: its answers by their numbers.
        row: tokens of its last answer with their prompt, to which the next prompt is mostly added.
    """

    answers: dict[int, JournalAnswer] = field(default_factory=dict)
    row: Sequence[int] = ()


class RolloutJournal:
    """The file of one batch of rollouts, and what is in it. Any thread may use it.

    As a context it writes; a file that can't be written is told once, and rollouts go on without.

    Args:
        path: the file; None keeps what comes in memory alone.
        facts: what the rollouts follow from; a file in which they are others is begun anew.

    Attributes:
        finished: rollouts that have ended, by their place in the plan.
        attempts: of each place how often its rollout was begun again.
        first_wave: number of the wave to go on with.
        again: answers of that wave and later ones, of attempts that have ended: to be sampled again, as neighbours of
            the others.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any]) -> None:
        self._path, self._facts = path, {"format": _FORMAT, **facts}
        self._stream: int | None = None
        self._number = 0
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.finished: dict[int, Rollout] = {}
        self.attempts: dict[int, int] = {}
        self.first_wave = 0
        self.again: list[tuple[Attempt, JournalAnswer]] = []
        self._open: dict[Attempt, _Open] = {}

    def __enter__(self) -> "RolloutJournal":
        if self._path is not None:
            found = self._read(self._path)
            try:
                self._stream = os.open(self._path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
                os.ftruncate(self._stream, found)
                os.lseek(self._stream, found, os.SEEK_SET)
            except OSError as error:
                self._give_up(error)
            self._write({"what": _RESUMED} if found else {"what": _BEGIN, "facts": self._facts})
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._stream is not None:
                os.close(self._stream)
                self._stream = None

    # ---------------------------------------------------------------------------------------------------------- reading

    def _read(self, path: Path) -> int:
        """Take in what the file has; return the byte to go on from, 0 to begin anew."""
        if not path.exists():
            return 0
        try:
            records, end = read_file(path, 0, last=True)
            if not records or records[0].fields.get("facts") != self._facts:
                return 0
            for record in records[1:]:
                self._take(record.fields)
        except (JournalError, KeyError, TypeError, ValueError) as error:
            logger.warning(f"rollouts that were made before are made again: {error}")
            self._forget()
            return 0
        self._resume()
        self._number = len(records)
        return end

    def _take(self, record: Mapping[str, Any]) -> None:
        what = record["what"]
        if what == _CLEAN:
            self.first_wave = record["wave"]
            self.again = []
        elif what == _RESUMED:
            self._resume()
        elif what == _ANSWER:
            attempt = Attempt(record["place"], record["attempt"])
            self._remember(attempt, self._answer_of(record, self._open.setdefault(attempt, _Open())))
        elif what == _END:
            rollout = record["rollout"]
            self._ended(Attempt(record["place"], record["attempt"]), None if rollout is None else rollout_of(rollout))

    def _resume(self) -> None:
        """Forget of attempts that have not ended what is sampled again."""
        for opened in self._open.values():
            opened.answers = {number: answer for number, answer in opened.answers.items()
                              if answer.wave is None or answer.wave < self.first_wave}  # fmt: skip
            opened.row = ()

    def _answer_of(self, record: Mapping[str, Any], opened: _Open) -> JournalAnswer:
        settings = record["settings"]
        bias = tuple((token, value) for token, value in settings.get("logit_bias", ()))
        settings = SamplingSettings(**{**settings, "logit_bias": bias})
        prompt = [*opened.row[: record["keep"]], *record["prompt"]]
        samples = tuple(
            RecalledSample(tuple(each["tokens"]), tuple(each["logprobs"]), each["finish"], each["stopped_by"],
                           tuple(tuple((token, value) for token, value in some) for some in each["likeliest"]))
            for each in record["samples"]
        )  # fmt: skip
        likeliest = record.get("prompt_likeliest")
        return JournalAnswer(
            record["number"], record["wave"], record["version"], SampleRequest(prompt, settings, record["count"]),
            samples, record.get("prompt_logprobs"),
            likeliest and [each and [(token, value) for token, value in each] for each in likeliest],
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------- what is known

    def known(self, attempt: Attempt, number: int, request: SampleRequest) -> JournalAnswer | None:
        """Return the answer that an attempt has had to a request.

        Args:
            attempt: the attempt.
            number: place of the request among those of the attempt.
            request: what is asked; where that is not what was asked before, nothing more is known of the attempt.
        """
        with self._lock:
            opened = self._open.get(attempt)
            found = None if opened is None else opened.answers.get(number)
            if opened is None or found is None:
                return None
            if found.answers(request):
                return found
            opened.answers = {each: answer for each, answer in opened.answers.items() if each < number}
            return None

    def _remember(self, attempt: Attempt, answer: JournalAnswer) -> None:
        opened = self._open.setdefault(attempt, _Open())
        opened.answers[answer.number] = answer
        opened.row = [*answer.request.prompt, *answer.samples[0].tokens]

    def _ended(self, attempt: Attempt, rollout: Rollout | None) -> None:
        opened = self._open.pop(attempt, _Open())
        late = [each for each in opened.answers.values() if each.wave is not None and each.wave >= self.first_wave]
        self.again += [(attempt, each) for each in sorted(late, key=lambda each: (each.wave or 0, each.number))]
        if rollout is None:
            self.attempts[attempt.place] = attempt.number + 1
        else:
            self.finished[attempt.place] = rollout

    # ---------------------------------------------------------------------------------------------------------- writing

    def note_answer(self, attempt: Attempt, answer: JournalAnswer) -> None:
        """Write down an answer, before whoever asked has it."""
        with self._lock:
            opened = self._open.setdefault(attempt, _Open())
            prompt, keep = list(answer.request.prompt), 0
            if list(opened.row) == prompt[: len(opened.row)]:
                keep = len(opened.row)
            given = {each.name: getattr(answer.request.settings, each.name) for each in fields(SamplingSettings)}
            settings = {name: value for name, value in given.items() if value != getattr(_USUAL, name)}
            further = {"prompt_logprobs": answer.prompt_logprobs, "prompt_likeliest": answer.prompt_likeliest}
            self._remember(attempt, answer)
            self._write_locked({
                "what": _ANSWER, "place": attempt.place, "attempt": attempt.number, "number": answer.number,
                "wave": answer.wave, "version": answer.version, "keep": keep, "prompt": [*map(int, prompt[keep:])],
                "settings": settings, "count": answer.request.samples,
                "samples": [vars(each) for each in answer.samples],
                **{name: value for name, value in further.items() if value is not None},
            })  # fmt: skip

    def note_clean(self, wave: int) -> None:
        """Write down that a wave begins clean: what was answered before stands."""
        with self._lock:
            if wave == self.first_wave:  # which a resumed run begins with, and a new one
                return
            self.first_wave, self.again = wave, []
            self._write_locked({"what": _CLEAN, "wave": wave})

    def note_end(self, attempt: Attempt, rollout: Rollout | None) -> None:
        """Write down that an attempt has ended.

        Args:
            attempt: the attempt.
            rollout: what came of it; None where it is made again.
        """
        with self._lock:
            self._ended(attempt, rollout)
            plain = None if rollout is None else plain_of(rollout)
            self._write_locked({"what": _END, "place": attempt.place, "attempt": attempt.number, "rollout": plain})

    def _write(self, record: Mapping[str, Any]) -> None:
        with self._lock:
            self._write_locked(record)

    def _write_locked(self, record: Mapping[str, Any]) -> None:
        if self._stream is None:
            return
        rest = memoryview(packed(self._number, record))
        self._number += 1
        try:
            while rest:  # it is with the system then, and outlives this process
                rest = rest[os.write(self._stream, rest) :]
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning(
            f"{self._path} can't be written ({error.strerror or error}): rollouts go on, and would all be made again "
            "if this process were killed now"
        )
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None


_USUAL = SamplingSettings()


def remove_journals(folder: Path, kept: Iterable[Path] = ()) -> None:
    """Remove journals whose rollouts no resumed run will ask for.

    Args:
        folder: where they lie.
        kept: those that stay.
    """
    keep = set(kept)
    for path in folder.glob("*.journal") if folder.is_dir() else ():
        if path not in keep:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # something is left in it
        folder.rmdir()
