"""Makes rollouts: plays an agent with many tasks at once against one model, and gathers what was sampled."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from data.trajectories import trajectory_of
from llm.sampling_settings import SamplingSettings
from service.openai.openai_app import openai_app
from service.sampling.exchange import Exchange, ExchangeLog, seed_of
from service.sampling.sampling_loop import SamplingLoop
from service.sampling.schedules import Continuous, Lockstep
from service.web.loopback_server import LoopbackServer
from train.agents.agent_elsewhere import Agent
from train.agents.agent_function import AgentFunction
from train.agents.played import TIMED_OUT, Played
from train.agents.player import Player, ProcessPlayer, ThreadPlayer
from train.agents.quiet import AgentOutput
from train.agents.rollout import Rollout, RolloutPlan
from train.agents.sampled_policy import SampledPolicy

_LOOK = 0.2  # seconds between looks at time limits, and at whether the run is to stop
_STAND_IN = "+"  # ends the key of a lane that goes on after a rollout was broken off
MOST_PROCESSES = 16  # of agents that make their own clients


@dataclass(frozen=True)
class RunnerSettings:
    """How rollouts are made.

    Attributes:
        at_once: rollouts under way at a time.
        seconds: time an agent has for a rollout, without that in which it waits for answers; 0 for no limit.
        turns: answers that a rollout may have; 0 for no limit.
        lockstep: whether requests are sampled in waves, so that results are the same to the bit each time.
        temperature: of requests that name none.
        max_tokens: most tokens of an answer, of requests that name no number; 0 for what the context has room for.
    """

    at_once: int = 64
    seconds: float = 0.0
    turns: int = 0
    lockstep: bool = True
    temperature: float = 1.0
    max_tokens: int = 0


class RolloutRunner:
    """Plays an agent.

    Rollouts lie on lanes, one after another on each: which lane a rollout is on follows from its place in the plan, so
    that what is sampled together does too.

    Args:
        agent: the agent.
        settings: how it is played.
    """

    def __init__(self, agent: Agent, settings: RunnerSettings) -> None:
        self.agent, self.settings, self._output = agent, settings, AgentOutput(None)
        self._port = 0  # stays the same: processes of agents live on, and know the address
        self._idle: dict[str, Player] = {}

    @property
    def lanes(self) -> int:
        """Rollouts under way at a time, at most."""
        return self.settings.at_once if self.agent.takes_client else min(self.settings.at_once, MOST_PROCESSES)

    def print_to(self, output: Path | None) -> None:
        """Let what agents print from now on go to a file; None drops it."""
        self._output = AgentOutput(output)

    def run(
        self,
        plans: Sequence[RolloutPlan],
        tasks: Sequence[object],
        policy: SampledPolicy,
        look: Callable[[int], None] = lambda done: None,
    ) -> list[Rollout]:
        """Make rollouts.

        Args:
            plans: what is to be made.
            tasks: all tasks, which the plans number.
            policy: the weights.
            look: called now and then by this thread with the number of rollouts that are done; what it raises ends
                this.

        Returns:
            The rollouts, in the order of the plans.
        """
        schedule = Lockstep() if self.settings.lockstep else None
        log = ExchangeLog()
        with (
            self._output.taken() as stream,
            SamplingLoop(policy.sampler(), policy.served(), schedule or Continuous()) as loop,
            self._server(loop, log, policy) as address,
        ):
            flight = _Flight(plans, tasks, self, log, schedule, loop, address, stream)
            try:
                flight.begin(min(self.lanes, len(plans)))
                while not flight.wait(_LOOK):
                    look(flight.done)
            finally:
                flight.end()
            found = flight.rollouts()
        del flight, loop, stream
        gc.collect()  # a server and its loop refer to one another, and to the sampler's memory
        return found

    @contextmanager
    def _server(self, loop: SamplingLoop, log: ExchangeLog, policy: SampledPolicy) -> Iterator[str]:
        settings = self.settings
        defaults = SamplingSettings(temperature=settings.temperature, max_tokens=settings.max_tokens or None)
        app = openai_app(loop, policy.renderer, log, defaults)
        with ExitStack() as stack:
            try:
                server = stack.enter_context(LoopbackServer(app, self._port))
            except OSError:  # somebody else has taken the port meanwhile: processes that know it end
                for player in self._idle.values():
                    player.stop()
                self._idle = {}
                server = stack.enter_context(LoopbackServer(app))
            self._port = server.port
            yield f"{server.url}/v1"

    def player(self, key: str, stream: TextIO) -> Player:
        """Return who plays the agent on a lane.

        Args:
            key: key of the lane's requests.
            stream: where goes what the agent prints.
        """
        known = self._idle.pop(key, None)
        if known is not None:
            return known
        agent = self.agent
        if isinstance(agent, AgentFunction) and agent.takes_client:
            return ThreadPlayer(agent, self._divert)
        return ProcessPlayer(agent, stream)

    def _divert(self) -> None:
        self._output.divert()

    def put_back(self, key: str, player: Player, busy: bool) -> None:
        """Take back who played on a lane; one that is busy, or that stood in for one, is stopped.

        Args:
            key: key of the lane's requests.
            player: who played.
            busy: whether a rollout is under way.
        """
        if busy or key.endswith(_STAND_IN):
            player.stop()
        else:
            self._idle[key] = player


@dataclass
class _Lane:
    """Rollouts that are made one after another.

    Attributes:
        plans: places of those that are left.
        key: of the requests of the one under way.
        player: who plays the agent.
        at: place of the rollout under way; None between two.
        seconds: time that the agent has taken for it, without that in which it waits for answers.
    """

    plans: list[int]
    key: str
    player: Player
    at: int | None = None
    seconds: float = 0.0


class _Flight:
    """Rollouts under way."""

    def __init__(
        self,
        plans: Sequence[RolloutPlan],
        tasks: Sequence[object],
        runner: RolloutRunner,
        log: ExchangeLog,
        schedule: Lockstep | None,
        loop: SamplingLoop,
        address: str,
        stream: TextIO,
    ) -> None:
        self._plans, self._tasks, self._runner, self._log, self._schedule = plans, tasks, runner, log, schedule
        self._loop, self._address, self._stream = loop, address, stream
        self._looked = time.monotonic()
        self._condition = threading.Condition()
        self._found: dict[int, Rollout] = {}
        self._lanes: list[_Lane] = []
        self._ended = False

    @property
    def done(self) -> int:
        """Number of rollouts that are done."""
        return len(self._found)

    def begin(self, lanes: int) -> None:
        """Spread the plans over lanes, and start them."""
        self._lanes = [
            _Lane(list(range(lane, len(self._plans), lanes)), key, self._runner.player(key, self._stream))
            for lane, key in enumerate(f"{lane:05d}" for lane in range(lanes))
        ]
        if self._schedule is not None:  # all at once, or the first wave would begin without the later ones
            self._schedule.enter(*(lane.key for lane in self._lanes))
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

    def _look_at_limits(self) -> None:
        """End rollouts that have taken too long, or too many answers."""
        settings, now, waiting = self._runner.settings, time.monotonic(), self._loop.keys()
        passed, self._looked = now - self._looked, now
        for lane in self._lanes:
            with self._condition:
                if lane.at is None:
                    continue
                lane.seconds += 0 if lane.key in waiting else passed
                why = ""
                if settings.seconds and lane.seconds > settings.seconds:
                    why = f"it took longer than rollout_seconds = {settings.seconds:g}"
                elif settings.turns and len(self._log.exchanges(lane.key)) > settings.turns:
                    why = f"it took more answers than rollout_turns = {settings.turns}"
            if why:
                self._break_off(lane, why)

    def end(self) -> None:
        """Let no further rollout begin, and end processes of agents."""
        with self._condition:
            self._ended = True
        for lane in self._lanes:
            self._runner.put_back(lane.key, lane.player, busy=lane.at is not None)

    def rollouts(self) -> list[Rollout]:
        """Return the rollouts, in the order of the plans."""
        return [self._found[place] for place in range(len(self._plans))]

    def _start(self, lane: _Lane) -> None:
        threading.Thread(target=self._fly, args=(lane, lane.key), name=f"agent-{lane.key}", daemon=True).start()

    def _fly(self, lane: _Lane, key: str) -> None:
        """Make the rollouts of a lane, as long as its key is this one: else somebody else goes on with it."""
        while True:
            with self._condition:
                if self._ended or lane.key != key or not lane.plans:
                    break
                lane.at, lane.seconds = lane.plans.pop(0), 0.0
                plan = self._plans[lane.at]
                self._log.open(key, plan.seed)
            played = lane.player.play(self._tasks[plan.task], self._address, key)
            with self._condition:
                if self._ended or lane.key != key:
                    return
                self._land(lane, played, self._log.close(key))
        if self._schedule is not None:
            self._schedule.leave(key)

    def _break_off(self, lane: _Lane, why: str) -> None:
        """End a rollout that has no end; the lane goes on under another key, in another thread or process."""
        with self._condition:
            if lane.at is None:
                return
            key, player = lane.key, lane.player
            self._land(lane, Played(TIMED_OUT, told=why), self._log.close(key))
            lane.key = f"{key}{_STAND_IN}"
            lane.player = self._runner.player(lane.key, self._stream)
            if self._schedule is not None and lane.plans:
                self._schedule.enter(lane.key)
        if self._schedule is not None:
            self._schedule.leave(key)
        player.stop()
        if lane.plans:
            self._start(lane)

    def _land(self, lane: _Lane, played: Played, exchanges: Sequence[Exchange]) -> None:
        """Note what came of the rollout that a lane is at."""
        assert lane.at is not None
        plan = self._plans[lane.at]
        rollout = Rollout(plan.task, plan.sample, played.outcome, played.reward, played.numbers, played.told)
        rollout.take(trajectory_of(exchanges))
        rollout.remarks = remarks_on(exchanges, plan.seed)
        self._found[lane.at], lane.at = rollout, None
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
    if any(each.top_p < 1 or each.top_k is not None or each.has_rules for _, each in settings):
        found.append(
            "the agent asks with top_p, top_k, a penalty, logit_bias, response_format or a forced tool: what is "
            "sampled is another policy than the one that is trained. Leave them out in training."
        )
    elif any(not each.greedy and each.temperature != 1 for _, each in settings):
        found.append(
            "samples are drawn at another temperature than 1: log-probabilities, ratios and kl are those of the model "
            "itself, at temperature 1."
        )
    return found
