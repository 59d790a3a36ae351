"""Training work of all models, in the order of each, done by the one thread of the engine.

    HTTP's event loop                  the engine's thread (`SamplingLoop`)
    submit(model, number, work) ->     between two steps of sampling: `_turn` takes the next work of each model
    RequestOrder of the model          -> passes for all losses together, then each other work -> promises end

Which thread does what: the event loop of the server reads and checks requests and waits for promises; the loop's thread
alone touches the engine, for training and for sampling, a piece of each in turn. So no lock guards the model, a step of
sampling never sees half a training step. Where both want it, each has half of the time: after each pass samples go on
for as long as the pass took. Adapters are never changed in place, so samples under way keep the weights that they began
with.

Of each model only the next work is taken in a turn, and which works a turn takes is settled before it begins. On a CPU
each of them gets the bits that it gets alone (`llm/loss_pass.py`), so what a model becomes follows from its own
requests, whoever else trains and whenever it was. Elsewhere numbers differ by rounding. So the journal hears of each
turn, before it is done, which requests it takes and in which order; what `_do` does follows from these requests, their
order and the weights alone. Whoever changes what is done together keeps to that: `journal.executed(ids)` once for each
group that `_do` takes.

On a CPU a turn takes no more small losses than fill half a pass, of those models first that have waited longest. For
whoever has an answer needs time until it asks again: while one half of many clients think, the other half are computed,
where they would all think, and then all wait, if a turn took all. (Large losses are answered one by one in any case.)
What is no loss comes first in a turn, as it is short. What losses and steps give is shown as soon as the requests that
it follows from are on disk: the disk doesn't have to know of their turn, so nobody waits for that.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llm.engine import Engine
from llm.engine_error import EngineError, PassFailedError
from llm.loss_pass import LossRequest, LossResult
from llm.model_error import ModelError
from service.journal.journal import Unkept
from service.sampling.sampling_loop import LoopEndedError, SamplingLoop
from service.tinker.promises import Promise
from service.tinker.request_order import RequestOrder
from service.tinker.tinker_messages import Answer, LossAnswer
from service.web.tinker_error import TinkerError

_LOG = logging.getLogger(__name__)
_LOOK = 0.1


@dataclass(frozen=True)
class Step:
    """An optimizer step, of which nothing comes but what follows from its model's own requests.

    Attributes:
        do: does it, on the engine's thread.
    """

    do: Callable[[], Answer]

    def __call__(self) -> Answer:
        """Do it."""
        return self.do()


@dataclass(frozen=True)
class Later:
    """What another thread has begun to do, out of what it was given; the model's losses and steps go on meanwhile.

    Attributes:
        doing: ends when it has.
        finish: takes it over, on the engine's thread, and returns the answer.
    """

    doing: "Future[Any]"
    finish: Callable[[], Answer]


# What is done with a model: rows to be measured, a step, or anything else, which the engine's thread calls.
Work = LossRequest | Step | Callable[[], Answer | Later]
# Writes down a request under its number, and returns the number of the record.
Accept = Callable[[int], int]


@dataclass(eq=False)
class _Task:
    model: str
    work: Work
    promise: Promise


@dataclass(frozen=True)
class Redone:
    """Work of a turn that was done before this process began.

    Attributes:
        model: id of the model.
        number: its place in the model's order.
        work: what is to be done.
        promise: what it ends.
    """

    model: str
    number: int
    work: Work
    promise: Promise


class TrainingQueue:
    """Takes in training work from any thread.

    Args:
        engine: the engine; its sampler is the loop's.
        loop: whose thread does the work.
        gap_seconds: how long a model waits for a number that is missing.
        most: requests that wait at a time, over all models; further ones are refused but for the next of a model.
        clock: tells seconds.
        journal: what is told of requests and turns.

    Attributes:
        trained_tokens: of all passes.
    """

    def __init__(
        self,
        engine: Engine,
        loop: SamplingLoop,
        gap_seconds: float = 60.0,
        most: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        journal: Unkept | None = None,
    ) -> None:
        self.engine, self._loop, self._gap, self._most, self._clock = engine, loop, gap_seconds, most, clock
        self._journal = journal or Unkept()
        self._orders: OrderedDict[str, RequestOrder[_Task]] = OrderedDict()  # who has waited longest first
        self._firm: dict[str, int] = {}  # of each model the record of its last turn with more than losses and steps
        self._saving: set[str] = set()  # models of which another thread does something
        self._lock = threading.Lock()
        self.trained_tokens = 0
        self._turning = False  # whether a turn is to come
        self._begun: set[_Task] = set()  # which other threads are at
        self._saved = threading.Condition(self._lock)
        self._changes: Counter[str] = Counter()  # of each model, what was done with it

    def open(self, model: str, work: Work, promise: Promise, accept: Accept | None = None) -> None:
        """Begin the order of a model by what makes it, which has the number 0.

        Args:
            model: id of the model.
            work: what makes it.
            promise: who waits for it.
            accept: writes the request down.

        Raises:
            TinkerError: there is a model of this id, or too much waits: then there is none.
        """
        with self._lock:
            if model in self._orders:
                raise TinkerError(f"there is a model {model!r} already")
            self._orders[model] = RequestOrder(0, self._gap, self._clock)
        try:
            self.submit(model, 0, work, promise, accept)
        except TinkerError:
            self.close_model(model)
            raise

    def close_model(self, model: str) -> None:
        """Forget the order of a model; what it holds fails."""
        with self._lock:
            order = self._orders.pop(model, None)
            self._firm.pop(model, None)
        for task in order.all_held() if order else ():
            task.promise.fail(TinkerError(f"the model {model} was unloaded"))

    @property
    def models(self) -> list[str]:
        """Ids of the models that there are, made or to be made."""
        return list(self._orders)

    def has(self, model: str) -> bool:
        """Return whether there is a model of this id, made or to be made."""
        return model in self._orders

    def submit(
        self, model: str, number: int | None, work: Work, promise: Promise, accept: Accept | None = None
    ) -> None:
        """Take in work; its promise ends when it is done, or can't be.

        Args:
            model: id of the model.
            number: its place in the model's order; None for the next.
            work: what is to be done.
            promise: who waits for it.
            accept: writes the request down; where it raises, nothing is taken in.

        Raises:
            TinkerError: there is no such model, too much waits, or it can't be written down.
        """
        with self._lock:
            order = self._orders.get(model)
            if order is None:
                raise TinkerError(f"there is no model {model!r}", 404)
            # What others wait for is taken in always: else a queue that is full of them would stay so.
            if (number != order.next or number == 0) and sum(map(len, self._orders.values())) >= self._most:
                raise TinkerError(f"{self._most} requests wait already: send this one again later", 429, "server")
            number = order.place(number)
            if accept is not None:
                promise.accepted = accept(number)
            fits = order.put(number, _Task(model, work, promise))
        if not fits:
            promise.fail(TinkerError(f"the turn of request {number} of model {model} is over: {order.next} comes next"))
        self._turn_later()

    def give_up_gaps(self) -> None:
        """Fail what waits behind a request that doesn't come. Whoever waits for a promise calls this now and then."""
        with self._lock:
            found = [(model, *order.given_up()) for model, order in self._orders.items()]
            for model, _, tasks in found:
                if tasks:
                    self._journal.note("given_up", model=model, next=self._orders[model].next)
        for model, missing, tasks in found:
            for task in tasks:
                task.promise.fail(
                    TinkerError(
                        f"request {missing} of model {model} has not come within {self._gap:g} s; this one, which "
                        "comes after it, was not done"
                    )
                )

    @property
    def saving(self) -> bool:
        """Whether another thread does something that was begun here."""
        return bool(self._saving)

    def wait_for_saves(self) -> None:
        """Wait until what other threads do is done and told. Not for the loop's thread."""
        with self._saved:  # looked at now and then too, as nobody says that the loop has ended
            while not self._saved.wait_for(lambda: not self._saving or self._loop.ended, _LOOK):
                pass

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        with self._lock:
            return sum(map(len, self._orders.values()))

    # ------------------------------------------------------------------------------------- before the loop has begun

    def restore(self, model: str, next: int) -> None:
        """Put back the order of a model.

        Args:
            model: id of the model.
            next: number of its next request.
        """
        with self._lock:
            self._orders[model] = RequestOrder(next, self._gap, self._clock)

    def redo(self, turn: Sequence[Redone]) -> None:
        """Do a turn again as it was done, without the journal.

        Args:
            turn: its requests, in their order.
        """
        for each in turn:
            if each.model in self._orders:
                self._orders[each.model].next = each.number + 1
        self._do([_Task(each.model, each.work, each.promise) for each in turn])

    @contextmanager
    def still(self) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
        """Take nothing in inside of a block. For the loop's thread.

        Returns:
            Of each model the number of its next request, and how often anything was done with it.
        """
        with self._lock:
            yield {model: order.next for model, order in self._orders.items()}, dict(self._changes)

    # ---------------------------------------------------------------------------------------------- the loop's thread

    def _turn_later(self) -> None:
        with self._lock:
            if self._turning or not any(self._ready(model) for model in self._orders):
                return
            self._turning = True
        try:
            self._loop.between_steps(self._turn)
        except LoopEndedError:
            self._turning = False
            self._fail_all()

    def _turn(self) -> None:
        """Do the next work of models: what is short first, then losses, all together."""
        with self._lock:
            self._turning = False
            taken = self._take()
        try:
            record = self._journal.executed([task.promise.id for task in taken])
            for task in taken:
                if not isinstance(task.work, LossRequest | Step):
                    self._firm[task.model] = record
                elif self._alone:
                    task.promise.needs = max(task.promise.accepted, self._firm.get(task.model, 0))
            self._do(taken, self._loop.give_way)
        finally:
            with self._lock:
                for task in taken:
                    if task.model in self._orders:
                        self._orders[task.model].done()
            for task in taken:  # whatever happened, nobody waits for ever
                if task not in self._begun:
                    task.promise.fail(TinkerError("the service failed; its log says how", category="server"))
            self._turn_later()

    @property
    def _alone(self) -> bool:
        """Whether work gives the same bits whatever is done together with it."""
        return self.engine.device.type == "cpu"

    def _ready(self, model: str) -> bool:
        """Return whether the next work of a model can be done. The lock must be held."""
        order = self._orders[model]
        return order.ready and (model not in self._saving or isinstance(order.first.work, LossRequest | Step))

    def _take(self) -> list[_Task]:
        """Return what is done in a turn. The lock must be held."""
        taken: list[_Task] = []
        half = self.engine.limits.pass_tokens // 2
        small = 0  # tokens of all small losses
        for model, order in self._orders.items():
            if not self._ready(model):
                continue
            tokens = _tokens(order.first.work)
            if self._alone and tokens <= half:
                if small + tokens > half:
                    continue
                small += tokens
            taken.append(order.take())
        for task in taken:
            self._orders.move_to_end(task.model)
        return taken

    def _do(self, taken: Sequence[_Task], give_way: Callable[[float], None] = lambda seconds: None) -> None:
        """Do work together. What comes of it follows from `taken` and the weights, and from nothing else.

        Args:
            taken: the work.
            give_way: called after each pass with the seconds that it took: what may be done then changes no adapter.
        """
        self._changes.update(task.model for task in taken)
        for task in taken:
            if not isinstance(task.work, LossRequest):
                self._end(task, task.work)
        losses = [(task, task.work) for task in taken if isinstance(task.work, LossRequest)]
        if losses:
            self._run([task for task, _ in losses], [work for _, work in losses], give_way)

    def _run(self, tasks: list[_Task], requests: list[LossRequest], give_way: Callable[[float], None]) -> None:
        begun = self._clock()
        try:
            for ended in self.engine.running(requests):
                for number, result in ended.items():
                    self._tell(tasks[number].promise, result)
                give_way(self._clock() - begun)
                begun = self._clock()
        except Exception as error:
            _LOG.exception("training failed")
            for task in tasks:
                task.promise.fail(TinkerError(f"the service failed: {error}", category="server"))

    def _tell(self, promise: Promise, result: LossResult | EngineError) -> None:
        if isinstance(result, PassFailedError):
            _LOG.error("a pass failed", exc_info=result.__cause__)
            promise.fail(TinkerError(str(result), category="server"))
        elif isinstance(result, EngineError):
            promise.fail(TinkerError(str(result)))
        else:
            self.trained_tokens += result.trained_tokens
            promise.keep(LossAnswer(result))

    def _end(self, task: _Task, work: Callable[[], Answer | Later]) -> None:
        try:
            found = work()
            if isinstance(found, Later):
                self._go_on_beside(task, found)
            else:
                task.promise.keep(found)
        except TinkerError as error:
            task.promise.fail(error)
        except ModelError as error:
            task.promise.fail(TinkerError(str(error)))
        except Exception as error:
            _LOG.exception("a request failed")
            task.promise.fail(TinkerError(f"the service failed: {error}", category="server"))

    def _go_on_beside(self, task: _Task, later: Later) -> None:
        """Let other work be done until another thread has done its part."""

        def finish() -> None:
            try:
                self._end(task, later.finish)
            finally:
                self._over(task)
                self._turn_later()

        def done(_: object) -> None:
            try:
                self._loop.between_steps(finish)
            except LoopEndedError as error:  # a later process does it again
                task.promise.refuse(TinkerError(str(error), category="server"))
                self._over(task)

        with self._lock:
            self._saving.add(task.model)
            self._begun.add(task)
        later.doing.add_done_callback(done)

    def _over(self, task: _Task) -> None:
        with self._saved:
            self._saving.discard(task.model)
            self._begun.discard(task)
            self._saved.notify_all()

    def _fail_all(self) -> None:
        with self._lock:
            tasks = [task for order in self._orders.values() for task in order.all_held()]
        for task in tasks:
            task.promise.refuse(TinkerError("the service has been closed", category="server"))


def _tokens(work: Work) -> int:
    """Return how many tokens go through the model for a work."""
    return sum(len(row.tokens) for row in work.rows) if isinstance(work, LossRequest) else 0
