"""Makes rollouts: plays an agent with many tasks at once against one model, and gathers what was sampled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from beautilog import logger

from constants.counting import counted
from llm.sampling_settings import SamplingSettings
from service.openai.openai_app import openai_app
from service.sampling.exchange import ExchangeLog
from service.sampling.sampling_loop import SamplingLoop
from service.sampling.schedules import Continuous
from service.web.loopback_server import LoopbackServer
from train.agents.agent_elsewhere import Agent
from train.agents.agent_function import AgentFunction
from train.agents.agent_processes import AgentProcesses
from train.agents.flight import Flight, FlightLimits
from train.agents.player import AgentLoops, Player, ThreadPlayer
from train.agents.quiet import AgentOutput
from train.agents.rollout import Rollout, RolloutPlan
from train.agents.rollout_journal import RolloutJournal
from train.agents.sampled_policy import SampledPolicy
from train.agents.waves import STAND_IN, Waves

_LOOK = 0.2  # seconds between looks at time limits, and at whether the run is to stop
MOST_PROCESSES = 16  # of agents that make their own clients


@dataclass(frozen=True)
class RunnerSettings:
    """How rollouts are made.

    Attributes:
        at_once: rollouts under way at a time.
        limits: what a rollout may take.
        processes: whether agents that are given a client play in processes too.
        lockstep: whether requests are sampled in waves, so that results are the same to the bit each time.
        temperature: of requests that name none.
        max_tokens: most tokens of an answer, of requests that name no number; 0 for what the context has room for.
    """

    at_once: int = 64
    limits: FlightLimits = field(default_factory=FlightLimits)
    processes: bool = False
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
        self._processes: AgentProcesses | None = None
        self._loops: AgentLoops | None = None

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
        look: Callable[[Sequence[Rollout]], None] = lambda done: None,
        journal: RolloutJournal | None = None,
    ) -> list[Rollout]:
        """Make rollouts.

        Args:
            plans: what is to be made.
            tasks: all tasks, which the plans number.
            policy: the weights.
            look: called now and then by this thread with the rollouts that are done; what it raises ends this.
            journal: what was made of this before, and where what is made is written down; None for neither.

        Returns:
            The rollouts, in the order of the plans.
        """
        log, sampler = ExchangeLog(), policy.sampler()
        with ExitStack() as stack:
            kept = stack.enter_context(journal or RolloutJournal(None, {}))
            stack.enter_context(self._output.taken())
            if kept.finished:
                known = f"{len(kept.finished)} of {counted(len(plans), 'rollout')}"
                logger.info(f"{known} were made before the run was interrupted, and are kept")
            stack.callback(sampler.release)  # the app, which is garbage in a circle, refers to it
            waves = None
            if self.settings.lockstep:
                waves = Waves(sampler.clear_prefixes, kept.note_clean, kept.first_wave)
            flight = Flight(plans, tasks, self.settings.limits, self, log, kept, waves)
            if len(flight.done) == len(plans):
                return flight.rollouts()
            loop = stack.enter_context(SamplingLoop(sampler, policy.served(), waves or Continuous(), memory=flight))
            address = stack.enter_context(self._server(loop, log, policy))
            try:
                flight.begin(min(self.lanes, len(plans)), loop, address)
                while not flight.wait(_LOOK):
                    look(flight.done)
            finally:
                flight.end()
            return flight.rollouts()

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

    def player(self, key: str) -> Player:
        """Return who plays the agent on a lane.

        Args:
            key: key of the lane's requests.
        """
        known = self._idle.pop(key, None)
        return self._new_player() if known is None else known

    def _new_player(self) -> Player:
        agent = self.agent
        if isinstance(agent, AgentFunction) and agent.takes_client and not self.settings.processes:
            if not agent.is_async:
                return ThreadPlayer(agent, self._divert)
            self._loops = self._loops or AgentLoops(agent, self._divert)
            return self._loops.player()
        if self._processes is None:
            self._processes = AgentProcesses(agent, agent.command, agent.takes_client, self._output.path)
        return self._processes.player()

    def _divert(self) -> None:
        self._output.divert()

    def put_back(self, key: str, player: Player, busy: bool) -> None:
        """Take back who played on a lane; one that is busy, or that stood in for one, is stopped.

        Args:
            key: key of the lane's requests.
            player: who played.
            busy: whether a rollout is under way.
        """
        if busy or key.endswith(STAND_IN):
            player.stop()
        else:
            self._idle[key] = player
