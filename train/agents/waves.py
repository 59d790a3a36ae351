"""Waves in which rollouts are sampled together. From one that begins clean a run can go on to the same bits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy

from llm.prefix_cache import common_length
from service.sampling.sampling_loop import Ticket
from service.sampling.schedules import Lockstep, Waiting

STAND_IN = "+"  # ends the key of a lane that goes on after a rollout was broken off
_SAMPLED = 4  # tokens that are read in the time in which one is sampled, about
_WORTH = 4  # times what is read again, at most once, for what was done since the last clean beginning


@dataclass
class _Said:
    """What is known of a lane's last wave.

    Attributes:
        tickets: its requests.
        prompts: their tokens.
    """

    tickets: list[Ticket] = field(default_factory=list)
    prompts: list[numpy.ndarray] = field(default_factory=list)


class Waves(Lockstep):
    """Lockstep whose waves are numbered, and of which some begin clean: the sampler knows nothing of those before.

    What is sampled from a clean beginning on follows from the weights and the requests of these waves alone, to the
    bit. A beginning that later turns share is then read again, so it is not each wave that begins clean: only one for
    which no more has to be read again than a quarter of what was read and sampled since the last. Rollouts of one turn
    share little, and nearly each of their waves does; those of many turns begin clean between one rollout and the next.
    Which waves these are follows from the tokens, never from time.

    Args:
        clear: lets the sampler forget what it knows of earlier waves.
        begun: called with the number of a wave that begins clean, before its requests begin; it must not wait.
        first: number of the first wave, which begins clean.
    """

    def __init__(self, clear: Callable[[], None], begun: Callable[[int], None], first: int = 0) -> None:
        super().__init__()
        self._clear, self._begun, self.wave = clear, begun, first - 1
        self._last: dict[str, _Said] = {}
        self._work: int | None = None  # tokens, since the last clean beginning

    def due(self, waiting: Sequence[Waiting], under_way: int) -> Sequence[int]:
        """All that wait, as soon as all that are active do; this begins a wave."""
        places = super().due(waiting, under_way)
        if places:
            self._begin([waiting[place] for place in places])
        return places

    def _begin(self, tickets: Sequence[Waiting]) -> None:
        self.wave += 1
        sampled = sum(_sampled(ticket) for said in self._last.values() for ticket in said.tickets)
        now: dict[str, _Said] = {}
        read = shared = 0
        for ticket in tickets:
            lane = ticket.key.rstrip(STAND_IN)
            prompt = numpy.asarray(ticket.request.prompt)
            read += len(prompt)
            shared += self._shared(lane, prompt)
            said = now.setdefault(lane, _Said())
            said.prompts.append(prompt)
            if isinstance(ticket, Ticket):
                said.tickets.append(ticket)
        self._last = now
        if self._work is not None:
            self._work += _SAMPLED * sampled
        if self._work is None or self._work >= _WORTH * shared:
            self._work = read
            self._clear()
            self._begun(self.wave)
        else:
            self._work += read - shared

    def _shared(self, lane: str, prompt: numpy.ndarray) -> int:
        """Return how many tokens of a prompt its lane has read or sampled in the last wave."""
        said = self._last.get(lane)
        if said is None:
            return 0
        rows = list(said.prompts)
        for ticket, before in zip(said.tickets, said.prompts, strict=False):
            for sample in () if ticket.handle is None else ticket.handle.samples:
                rows.append(numpy.concatenate([before, numpy.asarray(sample.tokens, dtype=before.dtype)]))
        return max(common_length(row, prompt) for row in rows)


def _sampled(ticket: Ticket) -> int:
    return 0 if ticket.handle is None else ticket.handle.completion_tokens
