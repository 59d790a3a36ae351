"""Rollouts under way: lanes on which an agent plays one after another, and what comes of them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Protocol

from beautilog import logger

from constants.counting import counted
from data.trajectories import trajectory_of
from llm.engine_error import EngineError
from llm.sampling_settings import SamplingSettings
from service.sampling.exchange import Exchange, ExchangeLog, seed_of
from service.sampling.sampling_loop import KnownAnswer, SamplingLoop, Ticket
from train import seeding
from train.agents.played import FAILED, LOST, TIMED_OUT, Played
from train.agents.player import Player
from train.agents.rollout import Rollout, RolloutPlan
from train.agents.rollout_journal import Attempt, JournalAnswer, RolloutJournal
from train.agents.sampled_policy import POLICY
from train.agents.waves import STAND_IN, Waves

# What makes the sampled policy another one than the model's, and whether settings ask for it.
_OTHER_POLICIES: dict[str, Callable[[SamplingSettings], bool]] = {
    "top_p": lambda asked: asked.top_p < 1,
    "top_k": lambda asked: asked.top_k is not None,
    "presence_penalty": lambda asked: bool(asked.presence_penalty),
    "frequency_penalty": lambda asked: bool(asked.frequency_penalty),
    "logit_bias": lambda asked: bool(asked.logit_bias),
    "a form (response_format, strict tools, or a tool that must be called)": lambda asked: asked.grammar is not None,
}
_USAGE = 5  # looks at limits for one at what processes take, which costs more


@dataclass(frozen=True)
class FlightLimits:
    """What rollouts may take.

    Attributes:
        seconds: time an agent has for a rollout, without that in which it waits for answers; 0 for no limit.
        turns: answers that a rollout may have; 0 for no limit.
        retries: how often a rollout is made again whose agent failed, or took too long.
        memory: bytes that the processes of a rollout may take; 0 for no limit.
        tasks: threads and processes that they may be.
    """

    seconds: float = 0.0
    turns: int = 0
    retries: int = 0
    memory: int = 0
    tasks: int = 1000


class Players(Protocol):
    """Has who plays the agent."""

    def player(self, key: str) -> Player:
        """Return who plays on a lane, by the key of its requests."""

    def put_back(self, key: str, player: Player, busy: bool) -> None:
        """Take back who played on a lane."""


@dataclass
class _Lane:
    """Rollouts that are made one after another.

    Attributes:
        plans: places of those that are left.
        key: of the requests of the one under way.
        player: who plays the agent.
        again: what is sampled before the first of them, as neighbours of other lanes.
        at: the attempt under way; None between two.
        seconds: time that the agent has taken for it, without that in which it waits for answers.
    """

    plans: list[int]
    key: str
    player: Player
    again: list[JournalAnswer] = field(default_factory=list)
    at: Attempt | None = None
    seconds: float = 0.0


class Flight:
    """Rollouts under way.

    It is the memory of the loop that samples for them: what their attempts were answered before is not sampled again.

    Args:
        plans: what is to be made.
        tasks: all tasks, which the plans number.
        limits: what a rollout may take.
        players: who plays the agent.
        log: records what is said.
        journal: what was made before, and where what is made now is written down.
        waves: when requests begin; None for at once.
    """

    def __init__(
        self,
        plans: Sequence[RolloutPlan],
        tasks: Sequence[object],
        limits: FlightLimits,
        players: Players,
        log: ExchangeLog,
        journal: RolloutJournal,
        waves: Waves | None,
    ) -> None:
        self._plans, self._tasks, self._limits, self._players = plans, tasks, limits, players
        self._log, self._journal, self._waves = log, journal, waves
        self._loop: SamplingLoop | None = None
        self._address = ""
        self._looked, self._looks = time.monotonic(), 0
        self._condition = threading.Condition()
        self._found: dict[int, Rollout] = dict(journal.finished)
        self._attempts: dict[int, int] = dict(journal.attempts)
        self._lanes: list[_Lane] = []
        self._by_key: dict[str, _Lane] = {}
        self._ended = False
        self._other = 0  # answers that were sampled again and came out otherwise

    @property
    def done(self) -> list[Rollout]:
        """Rollouts that are done."""
        with self._condition:
            return list(self._found.values())

    def begin(self, lanes: int, loop: SamplingLoop, address: str) -> None:
        """Spread the plans over lanes, and start them.

        Args:
            lanes: number of lanes.
            loop: what samples.
            address: base URL of the endpoint.
        """
        self._loop, self._address = loop, address
        again: dict[int, list[JournalAnswer]] = {}
        for attempt, answer in self._journal.again:
            again.setdefault(attempt.place % lanes, []).append(answer)
        for number in range(lanes):
            plans = [place for place in range(number, len(self._plans), lanes) if place not in self._found]
            if plans or number in again:
                key = f"{number:05d}"
                late = sorted(again.get(number, []), key=lambda each: (each.wave or 0, each.number))
                self._lanes.append(_Lane(plans, key, self._players.player(key), late))
        self._by_key = {lane.key: lane for lane in self._lanes}
        if self._waves is not None:  # all at once, or the first wave would begin without the later ones
            self._waves.enter(*self._by_key)
        for lane in self._lanes:
            self._start(lane)

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, or for some seconds; then end rollouts that are over a limit.

        Returns:
            Whether all is done.
        """
        with self._condition:
            done = self._condition.wait_for(lambda: len(self._found) == len(self._plans), seconds)
        if not done:
            self._look_at_limits()
        return done

    def end(self) -> None:
        """Let no further rollout begin, and end processes of agents."""
        with self._condition:
            self._ended = True
        for lane in self._lanes:
            self._players.put_back(lane.key, lane.player, busy=lane.at is not None)
        if self._other:
            logger.warning(
                f"{counted(self._other, 'answer')} came out otherwise than before the run was interrupted: another "
                "machine, another number of threads or another version of a library rounds otherwise"
            )

    def rollouts(self) -> list[Rollout]:
        """Return the rollouts, in the order of the plans."""
        return [self._found[place] for place in range(len(self._plans))]

    # ------------------------------------------------------------------------------------------ what was sampled before

    def known(self, ticket: Ticket) -> KnownAnswer | None:
        """Return the answer that a request's attempt was given before the process at hand began."""
        attempt = self._at(ticket.key)
        if attempt is None or self._loop is None:
            return None
        answer = self._journal.known(attempt, ticket.number, ticket.request)
        if answer is None:
            return None
        handle = self._loop.sampler.recall(ticket.request, answer.samples)
        handle.prompt_logprobs, handle.prompt_likeliest = answer.prompt_logprobs, answer.prompt_likeliest
        return KnownAnswer(answer.version, handle)

    def note(self, ticket: Ticket) -> None:
        """Write down what was sampled."""
        attempt = self._at(ticket.key)
        answer = JournalAnswer.of(ticket, None if self._waves is None else self._waves.wave)
        if attempt is not None and answer is not None:
            self._journal.note_answer(attempt, answer)

    def _at(self, key: str) -> Attempt | None:
        lane = self._by_key.get(key)
        return lane.at if lane is not None and lane.key == key else None

    def _sample_again(self, lane: _Lane, key: str) -> None:
        """Ask what rollouts of a lane that have ended asked in waves that are made again."""
        assert self._loop is not None
        try:
            for _, answers in groupby(lane.again, key=lambda each: each.wave):
                asked = [(each, self._loop.submit(key, POLICY, each.request, each.number)) for each in answers]
                for before, ticket in asked:
                    now = [tuple(sample.tokens) for sample in ticket.result().samples]
                    self._other += now != [tuple(each.tokens) for each in before.samples]
        except (EngineError, LookupError):  # the loop has ended
            return

    # ----------------------------------------------------------------------------------------------- lanes and attempts

    def _look_at_limits(self) -> None:
        """End rollouts that have taken too long, or too much."""
        assert self._loop is not None
        now, waiting = time.monotonic(), self._loop.keys()
        passed, self._looked = now - self._looked, now
        self._looks += 1
        for lane in self._lanes:
            if lane.at is None:
                continue
            why = self._over_limit(lane, 0.0 if lane.key in waiting or lane.player.held_up() else passed)
            if not why and self._looks % _USAGE == 0:
                why = self._takes_too_much(lane)
            if why:
                self._break_off(lane, Played(TIMED_OUT, told=why[0]), again=why[1])

    def _over_limit(self, lane: _Lane, passed: float) -> tuple[str, bool] | None:
        """Say which limit of time or turns a rollout is over, and whether it may be made again; None for none."""
        limits = self._limits
        with self._condition:
            if lane.at is None:
                return None
            lane.seconds += passed
            if limits.seconds and lane.seconds > limits.seconds:
                return f"it took longer than rollout_seconds = {limits.seconds:g}", True
            if limits.turns and len(self._log.exchanges(lane.key)) > limits.turns:
                return f"it took more answers than rollout_turns = {limits.turns}", False
        return None

    def _takes_too_much(self, lane: _Lane) -> tuple[str, bool] | None:
        """As `_over_limit`, of what the processes of a rollout take of the machine."""
        usage, limits = lane.player.usage(), self._limits
        if usage is not None and limits.memory and usage.bytes > limits.memory:
            return f"it took more memory than rollout_memory = {limits.memory // 2**20} MiB", True
        if usage is not None and usage.tasks > limits.tasks:
            return f"it began more than {limits.tasks} threads and processes", True
        return None

    def _start(self, lane: _Lane) -> None:
        if lane.again:  # which is waited for
            threading.Thread(target=self._lead_up, args=(lane, lane.key), name="sample-again", daemon=True).start()
        else:
            self._next(lane, lane.key)

    def _lead_up(self, lane: _Lane, key: str) -> None:
        self._sample_again(lane, key)
        lane.again = []
        self._next(lane, key)

    def _next(self, lane: _Lane, key: str) -> None:
        """Begin the next rollout of a lane, as long as its key is this one: else somebody else goes on with it."""
        with self._condition:
            if self._ended or lane.key != key:
                return
            at = Attempt(lane.plans[0], self._attempts.get(lane.plans[0], 0)) if lane.plans else None
            if at is not None:
                del lane.plans[0]
                lane.at, lane.seconds = at, 0.0
                self._log.open(key, self._seed(at))
        if at is not None:
            task = self._tasks[self._plans[at.place].task]
            lane.player.begin(task, self._address, key, partial(self._hear, lane, key))
        elif self._waves is not None:
            self._waves.leave(key)

    def _hear(self, lane: _Lane, key: str, played: Played) -> None:
        """Take in what came of the rollout that a lane is at, and begin the next one."""
        with self._condition:
            if self._ended or lane.key != key:
                return
            if played.outcome != LOST:
                self._land(lane, played, *self._closed(key), again=played.outcome == FAILED)
        if played.outcome == LOST:
            self._go_on(lane, lambda: self._give_back(lane))
        else:
            self._next(lane, key)

    def _break_off(self, lane: _Lane, played: Played, again: bool) -> None:
        """End a rollout that has no end.

        Args:
            lane: the lane that it is on.
            played: what is told of it.
            again: whether it may be made again.
        """
        player = lane.player
        self._go_on(lane, lambda: self._land(lane, played, *self._closed(lane.key), again=again))
        player.stop()

    def _give_back(self, lane: _Lane) -> None:
        """Let a lane begin the attempt anew that it is at; answers that it has had are given to it again."""
        assert lane.at is not None
        self._log.close(lane.key)
        lane.plans.insert(0, lane.at.place)
        lane.at = None

    def _go_on(self, lane: _Lane, leave: Callable[[], None]) -> None:
        """Let a lane go on under another key, with another player, whatever the one at hand does.

        Args:
            lane: the lane.
            leave: notes what comes of the attempt under way.
        """
        with self._condition:
            if lane.at is None or self._ended:
                return
            leave()
            key, lane.key = lane.key, f"{lane.key}{STAND_IN}"
            lane.player = self._players.player(lane.key)
            self._by_key[lane.key] = lane
            if self._waves is not None and lane.plans:
                self._waves.enter(lane.key)
        if self._waves is not None:
            self._waves.leave(key)
        if lane.plans:
            self._start(lane)

    def _seed(self, attempt: Attempt) -> int:
        """Return the seed of an attempt's requests: each has other ones, or it would fail as the last did."""
        seed = self._plans[attempt.place].seed
        return seeding.seed_of(seed, attempt.number) if attempt.number else seed

    def _closed(self, key: str) -> tuple[list[Exchange], int]:
        """End the recording of a key; return its exchanges, and how many answers it didn't wait for beside these."""
        unanswered = self._log.unanswered(key)
        exchanges = self._log.close(key)
        return exchanges, len(unanswered - {each.number for each in exchanges})

    def _land(self, lane: _Lane, played: Played, exchanges: Sequence[Exchange], left: int, again: bool) -> None:
        """Note what came of the attempt that a lane is at.

        Args:
            lane: the lane.
            played: how it ended.
            exchanges: what was asked and answered.
            left: answers that it didn't wait for, and that are no exchanges yet.
            again: whether it may be made again.
        """
        attempt = lane.at
        assert attempt is not None
        lane.at = None
        if again and attempt.number < self._limits.retries:
            self._attempts[attempt.place] = attempt.number + 1
            lane.plans.insert(0, attempt.place)
            self._journal.note_end(attempt, None)
            return
        plan = self._plans[attempt.place]
        rollout = Rollout(plan.task, plan.sample, played.outcome, played.reward, played.numbers, played.told)
        rollout.take(trajectory_of(exchanges), 0 if played.outcome == TIMED_OUT else left)  # it would have waited
        rollout.remarks = remarks_on(exchanges, self._seed(attempt))
        rollout.retries = attempt.number
        self._journal.note_end(attempt, rollout)
        self._found[attempt.place] = rollout
        self._condition.notify_all()


def remarks_on(exchanges: Sequence[Exchange], seed: int) -> list[str]:
    """Say what is odd about how a model was asked that is to be trained.

    Args:
        exchanges: the requests and their answers.
        seed: seed of those that name none.
    """
    settings = [(each.number, each.settings) for each in exchanges]
    alike = "its rollouts of a task are all the same, and nothing can be learned from that"
    found = []
    if any(each.greedy for _, each in settings):
        found.append(
            f"the agent asks for the likeliest tokens (temperature 0): {alike}. Leave temperature out in training."
        )
    elif any(each.seed != seed_of(seed, number) for number, each in settings):
        found.append(f"the agent asks with a seed of its own: {alike}. Leave seed out in training.")
    other = [name for name, asks in _OTHER_POLICIES.items() if any(asks(each) for _, each in settings)]
    if other:
        found.append(
            f"the agent asks with {' and '.join(other)}: what is sampled is another policy than the one that is "
            "trained. Leave that out in training."
        )
    elif any(not each.greedy and each.temperature != 1 for _, each in settings):
        found.append(
            "samples are drawn at another temperature than 1: log-probabilities, ratios and kl are those of the model "
            "itself, at temperature 1. Leave temperature out, or at 1, in training."
        )
    return found
