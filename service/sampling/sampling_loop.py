"""The one thread that samples: clients' requests go in from any thread, answers come out as they grow.

Other work on the same model, such as training, is done by this thread too, between two steps (`between_steps`).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from llm.engine_error import EngineError
from llm.sample_result import Sample, SampleHandle
from llm.sampling import Sampler
from llm.sampling_settings import SampleRequest
from service.sampling.schedules import Continuous, Schedule
from service.sampling.served_models import ServedModels

_LOG = logging.getLogger(__name__)
_LOOK = 0.02  # seconds after which it is looked for new requests while another thread works


class LoopEndedError(EngineError):
    """Nothing is sampled any more: the service has been closed."""


@dataclass(frozen=True)
class Increment:
    """What one sample has grown by.

    Attributes:
        sample: its place among the request's samples.
        tokens: sampled ids.
        logprobs: of each id.
        likeliest: of each id the likeliest ones in its place, where they were asked for.
        text: characters that can be shown; never half of one, and nothing that a stop string may take back.
        finish: why it ended; None while it goes on.
        stopped_by: the id or the string that ended it.
    """

    sample: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    likeliest: tuple[list[tuple[int, float]], ...] | None
    text: str
    finish: str | None = None
    stopped_by: int | str | None = None

    @staticmethod
    def whole(number: int, sample: Sample) -> "Increment":
        """Return all of a sample that has ended."""
        likeliest = None if sample.likeliest is None else tuple(sample.likeliest)
        tokens, logprobs = tuple(sample.tokens), tuple(sample.logprobs)
        return Increment(number, tokens, logprobs, likeliest, sample.text, sample.finish, sample.stopped_by)

    def entries(self) -> Iterator[tuple[int, float, list[tuple[int, float]]]]:
        """Yield each id with its logprob and the likeliest ones in its place."""
        likeliest = self.likeliest or ([],) * len(self.tokens)
        yield from zip(self.tokens, self.logprobs, likeliest, strict=True)


@dataclass(frozen=True)
class KnownAnswer:
    """An answer that was given before.

    Attributes:
        version: id of the weights that answered.
        handle: its samples, all of which have ended.
    """

    version: str
    handle: SampleHandle


class AnswerMemory(Protocol):
    """Knows what was answered before, so that it isn't sampled again, and hears of what is answered now."""

    def known(self, ticket: "Ticket") -> KnownAnswer | None:
        """Return the answer to a request that has come; None where it has to be sampled. Any thread calls this."""

    def note(self, ticket: "Ticket") -> None:
        """Take in a request that was sampled to its end, before its client hears of it. The loop's thread calls this.

        It must not wait, and raise nothing.
        """


class Ticket:
    """A request on its way through the loop.

    Attributes:
        key: whose request it is.
        number: place among the requests of its key.
        model: name of the model that was asked for.
        target: name of the model that this stood for when the request came: aliases may be pointed elsewhere.
        request: what was asked.
        version: id of the weights that answer; None before it has begun.
        handle: its samples; None before it has begun.
        error: why there is no answer; None where there is one, or none yet.
        cancelled: whether its client has gone.
    """

    def __init__(
        self,
        key: str,
        number: int,
        model: str,
        request: SampleRequest,
        streams: bool,
        changed: Callable[[], None] | None,
        target: str | None = None,
    ) -> None:
        self.key, self.number, self.model, self.request = key, number, model, request
        self.target = model if target is None else target
        self.version: str | None = None
        self.handle: SampleHandle | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self._streams, self._changed = streams, changed
        self._increments: deque[Increment] = deque()
        self._told = [(0, 0, False)] * request.samples  # of each sample: tokens, characters, end
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._done.is_set()

    def take(self) -> list[Increment]:
        """Return what has come since the last call, of a request that streams."""
        taken = []
        while self._increments:
            taken.append(self._increments.popleft())
        return taken

    def result(self, timeout: float | None = None) -> SampleHandle:
        """Wait for the end.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Returns:
            The samples, all of which have ended.

        Raises:
            EngineError: the request failed.
            TimeoutError: it is still under way.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"the request was not answered within {timeout} s")
        if self.error is not None:
            raise self.error
        if self.handle is None:
            raise LoopEndedError("the request was cancelled before it began")
        return self.handle

    def give(self, answer: KnownAnswer) -> None:
        """Answer it by what is known, before anybody else has it."""
        self.version, self.handle = answer.version, answer.handle
        self.tell()
        self.end()

    def tell(self) -> None:
        """Note what the samples have grown by. Only the loop calls this."""
        if self._streams and self.handle is not None:
            grown = False
            for number, sample in enumerate(self.handle.samples):
                tokens, characters, ended = self._told[number]
                if ended or (len(sample.tokens) == tokens and sample.finish is None):
                    continue
                likeliest = None if sample.likeliest is None else tuple(sample.likeliest[tokens:])
                new = Increment(
                    number, tuple(sample.tokens[tokens:]), tuple(sample.logprobs[tokens:]), likeliest,
                    sample.text[characters:], sample.finish, sample.stopped_by,
                )  # fmt: skip
                self._increments.append(new)
                self._told[number] = len(sample.tokens), len(sample.text), sample.finish is not None
                grown = True
            if grown and self._changed is not None:
                self._changed()

    def end(self, error: Exception | None = None) -> None:
        """Say that nothing more will come. Only the loop calls this."""
        self.error = self.error or error
        self._done.set()
        if self._changed is not None:
            self._changed()


class SamplingLoop:
    """Owns a sampler: the one thread that steps it.

    `submit`, `cancel`, `pause` and `resume` may be called by any thread.

        with SamplingLoop(sampler, models) as loop:
            ticket = loop.submit("somebody", "policy", SampleRequest(prompt_ids))
            tokens = ticket.result().samples[0].tokens

    Args:
        sampler: the sampler; nobody else may step it meanwhile.
        models: names by which weights are asked for. A request has those that its name stands for when it begins.
        schedule: when requests begin; None for at once.
        clock: tells seconds.
        memory: knows answers that were given before, and hears of new ones; None for none.

    Attributes:
        sampled_tokens: of all requests that have ended.
    """

    def __init__(
        self,
        sampler: Sampler,
        models: ServedModels,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.monotonic,
        memory: AnswerMemory | None = None,
    ) -> None:
        self.sampler, self.models, self._clock, self._memory = sampler, models, clock, memory
        self._sampled = 0.0  # seconds of all steps
        self.schedule: Schedule = Continuous() if schedule is None else schedule
        self._condition = threading.Condition()
        self._waiting: list[Ticket] = []
        self._under_way: list[Ticket] = []
        self._gone: list[Ticket] = []  # to be cancelled
        self._work: deque[Callable[[], None]] = deque()  # to be done between two steps
        self._closing = False
        self.sampled_tokens = 0
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)
        self.schedule.notify(self._wake)

    # ----------------------------------------------------------------------------------------------------- for callers

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def close(self) -> None:
        """End: requests that wait or are under way fail, and the thread is over when this returns."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._end_all(LoopEndedError("the service has been closed"))
        self._memory = None  # it may know the loop, and both would stay until Python looks for such circles

    def __enter__(self) -> "SamplingLoop":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        key: str,
        model: str,
        request: SampleRequest,
        number: int = 0,
        streams: bool = False,
        changed: Callable[[], None] | None = None,
    ) -> Ticket:
        """Take in a request.

        Args:
            key: whose request it is.
            model: name of the model.
            request: what is asked; its adapter is the one that the name stands for.
            number: place among the requests of its key.
            streams: whether `Ticket.take` is wanted, to get answers as they grow.
            changed: called by the loop's thread when there is something to take, and at the end; it must not wait.

        Returns:
            Its ticket.

        Raises:
            UnknownModelError: there is no such model.
            SettingError: the prompt has an unknown token or leaves no room in the context, or a setting can't be used.
            NotEnteredError: the schedule would never let it begin.
            LoopEndedError: the loop has been closed.
        """
        return self.submit_together(key, model, [request], [number], streams, changed)[0]

    def submit_together(
        self,
        key: str,
        model: str,
        requests: Sequence[SampleRequest],
        numbers: Sequence[int],
        streams: bool = False,
        changed: Callable[[], None] | None = None,
    ) -> list[Ticket]:
        """Take in several requests at once, as `submit` one; all of them or none."""
        target = self.models.find(model).name
        for request in requests:
            self.sampler.check(request)
        self.schedule.require(key)
        tickets = [Ticket(key, number, model, request, streams, changed, target)
                   for request, number in zip(requests, numbers, strict=True)]  # fmt: skip
        memory = self._memory
        answers = [None if memory is None else memory.known(ticket) for ticket in tickets]
        with self._condition:
            if self._closing:
                raise LoopEndedError("the service has been closed")
            self._waiting += [ticket for ticket, answer in zip(tickets, answers, strict=True) if answer is None]
            self._condition.notify_all()
        for ticket, answer in zip(tickets, answers, strict=True):
            if answer is not None:
                ticket.give(answer)
        return tickets

    def cancel(self, ticket: Ticket) -> None:
        """Say that nobody waits for an answer any more: it ends with the step that runs, or with its wave."""
        with self._condition:
            ticket.cancelled = True
            self._gone.append(ticket)
            self._condition.notify_all()

    def between_steps(self, work: Callable[[], None]) -> None:
        """Let the loop's thread do something between two steps: nothing else touches the model meanwhile.

        After it samples have as much time as it took, before the next such work is done; long work gives way itself
        (`give_way`). Samples under way keep the weights that they began with, whatever it does to adapters.

        Args:
            work: what is to be done; an exception is logged and nothing else.

        Raises:
            LoopEndedError: the loop has been closed. Work that waits when it closes is not done.
        """
        with self._condition:
            if self._closing:
                raise LoopEndedError("the service has been closed")
            self._work.append(work)
            self._condition.notify_all()

    def keys(self) -> set[str]:
        """Return whose requests wait or are under way."""
        with self._condition:
            return {ticket.key for ticket in (*self._waiting, *self._under_way)}

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._under_way)

    @property
    def ended(self) -> bool:
        """Whether it has been closed, or its thread has ended by an error: nothing is done any more."""
        return self._closing

    # ------------------------------------------------------------------------------------------------ the loop's thread

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _run(self) -> None:
        try:
            while (tickets := self._next()) is not None:
                self._advance(tickets)
                if self._work:
                    begun, sampled = self._clock(), self._sampled
                    try:
                        self._work.popleft()()
                    except Exception:
                        _LOG.exception("work between two steps failed")
                    # What it gave to samples while it was at work counts for both.
                    self.give_way(self._clock() - begun - 2 * (self._sampled - sampled))
        finally:  # nobody may wait for a thread that is no more
            self._end_all(LoopEndedError("the service has been closed"))

    def meanwhile(self, others: Future[Any]) -> None:
        """Go on sampling until another thread has done its work. For the loop's thread, between two steps.

        Args:
            others: what the other thread does; no adapter that can be sampled from may be changed by it.
        """
        while not others.done():
            with self._condition:
                tickets = [] if self._closing else self._due()
            self._advance(tickets)
            if not self._under_way or self._closing:
                wait([others], timeout=_LOOK)

    def give_way(self, seconds: float) -> None:
        """Let what is under way be sampled for as long as other work has taken. For the loop's thread, in such work.

        So each has half of the time, whatever its pieces are: a step of samples may be a hundredth of a training pass.

        Args:
            seconds: how long at most, up to the end of the step that runs then.
        """
        until = self._clock() + seconds
        while self._clock() < until:
            with self._condition:
                tickets = [] if self._closing else self._due()
            self._advance(tickets)
            if not self._under_way or self._closing:
                return

    def _advance(self, tickets: Sequence[Ticket]) -> None:
        """Begin what is due, and give all that is under way a step."""
        for ticket in tickets:
            self._begin(ticket)
        if self._under_way:
            begun = self._clock()
            try:
                self.sampler.step()
            except Exception as error:  # whatever a step raises, clients must hear of it, and the loop goes on
                _LOG.exception("a step of the sampler failed")
                self._fail(EngineError(f"sampling failed: {error}"))
            self._deliver()
            self._sampled += self._clock() - begun

    def _next(self) -> list[Ticket] | None:
        """Wait for something to do.

        Returns:
            Requests that are to begin, which are counted as under way; None at the loop's end.
        """
        with self._condition:
            while True:
                if self._closing:
                    return None
                tickets = self._due()
                if self._under_way or self._work:
                    return tickets
                self._condition.wait()

    def _due(self) -> list[Ticket]:
        """Return requests that are to begin, which are counted as under way. The lock must be held."""
        self._drop_gone()
        due = self.schedule.due(self._waiting, len(self._under_way))
        tickets = [self._waiting[place] for place in due]
        if tickets:
            chosen = set(due)
            self._waiting = [each for place, each in enumerate(self._waiting) if place not in chosen]
            self._under_way += tickets
        return tickets

    # The lock is held as short as can be: the thread that answers clients waits for it with each request.

    def _begin(self, ticket: Ticket) -> None:
        try:
            served = self.models.find(ticket.target)
            request = ticket.request
            if request.adapter != served.adapter:
                request = replace(request, adapter=served.adapter)
            ticket.handle, ticket.version = self.sampler.submit(request), served.version
        except Exception as error:
            ticket.error = error

    def _drop_gone(self) -> None:
        """End what nobody waits for, as far as the schedule allows."""
        gone, self._gone = self._gone, []
        for ticket in gone:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                ticket.end()
            elif ticket.handle is not None and self.schedule.ends_early:
                self.sampler.cancel(ticket.handle)

    def _deliver(self) -> None:
        """Tell clients what the step has brought."""
        ended: list[Ticket] = []
        others: list[Ticket] = []
        for ticket in self._under_way:  # which only this thread changes
            ticket.tell()
            over = ticket.error is not None or ticket.handle is None or ticket.handle.done
            (ended if over else others).append(ticket)
        if ended:
            self._under_way = others
            for ticket in ended:
                self.sampled_tokens += 0 if ticket.handle is None else ticket.handle.completion_tokens
                if self._memory is not None and ticket.handle is not None and ticket.handle.error is None:
                    self._memory.note(ticket)
                ticket.end(None if ticket.handle is None else ticket.handle.error)

    def _fail(self, error: EngineError) -> None:
        """End all that is under way by an error."""
        for ticket in self._under_way:
            ticket.error = ticket.error or error
            if ticket.handle is not None:
                self.sampler.cancel(ticket.handle)

    def _end_all(self, error: EngineError) -> None:
        """End all that waits or is under way by an error, and take in nothing more."""
        with self._condition:
            self._closing = True
            tickets, self._waiting, self._under_way = [*self._waiting, *self._under_way], [], []
            self._condition.notify_all()
        for ticket in tickets:
            ticket.end(error)
        for ticket in tickets:
            if ticket.handle is not None:
                self.sampler.cancel(ticket.handle)
