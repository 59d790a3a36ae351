"""What a person sees while rollouts are made: numbers of those that are done, and how they went from epoch to epoch."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

from beautilog import logger

from constants.time_spans import duration
from train.agents.rollout import Rollout
from train.agents.rollout_summary import group_of, reward_interval, rollout_numbers
from train.loop.progress import ProgressBar

_SECONDS = 1.0  # between two looks at numbers
_SECONDS_BETWEEN_LINES = 60.0  # of the log, where no terminal shows them
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 24


class LiveView:
    """Shows rollouts under way below the bar of the run; off a terminal, a line of the log every minute.

    Args:
        bar: the run's bar.
        name: what is made, such as `epoch 3`.
        planned: number of rollouts that are made.
        history: lists of the run's history by name.
        success: reward from which on a rollout is a success.
        clock: tells seconds.
    """

    def __init__(
        self,
        bar: ProgressBar,
        name: str,
        planned: int,
        history: Mapping[str, Sequence[float]],
        success: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar, self._name, self._planned, self._success = bar, name, planned, success
        self._history, self._clock = history, clock
        self._begun = self._looked = self._told = clock()

    def look(self, rollouts: Sequence[Rollout]) -> None:
        """Show how far it is.

        Args:
            rollouts: those that are done.
        """
        now = self._clock()
        if now - self._looked < _SECONDS:
            return
        self._looked = now
        if self._bar.on_terminal:
            lines = live_pieces(rollouts, self._success, self._history)
            self._bar.show_below([self._far(rollouts, now), *lines], tendency(self._history))
        elif now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            logger.info(", ".join([self._far(rollouts, now), *live_pieces(rollouts, self._success, self._history)]))

    def _far(self, rollouts: Sequence[Rollout], now: float) -> str:
        return f"{self._name}: {len(rollouts)} of {self._planned} rollouts in {duration(now - self._begun)}"

    def close(self) -> None:
        """Take the numbers away again."""
        self._bar.show_below([], [])


def live_pieces(
    rollouts: Sequence[Rollout], success: float, history: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """Say what is known of rollouts, a text for each number.

    Args:
        rollouts: those that are done.
        success: reward from which on a rollout is a success.
        history: lists of the run's history; the last `train_kl`, or else `val_kl`, is told.
    """
    if not rollouts:
        return []
    numbers = {name: value for name, (value, _) in rollout_numbers(rollouts, success).items()}
    pieces = []
    if "reward" in numbers:
        interval = reward_interval(rollouts)
        pieces.append(f"reward {numbers['reward']:.3g}{'' if interval is None else f' ± {interval:.2g}'}")
        pieces.append(f"success {numbers['success']:.0%}")
    if "turns" in numbers:
        pieces += [f"turns {numbers['turns']:.3g}", f"tokens {numbers['length']:.3g}"]
        pieces.append(f"entropy {numbers['entropy']:.3g}")
    for name in ("train_kl", "val_kl"):
        last = (history or {}).get(name, ())
        if last and math.isfinite(last[-1]):
            pieces.append(f"{name} {last[-1]:.3g}")
            break
    share = share_with_variance(rollouts)
    pieces += [] if share is None else [f"groups with variance {share:.0%}"]
    pieces += [f"cut off {numbers['cut_off']:.0%}"] if numbers.get("cut_off") else []
    pieces += [f"failed {numbers['failed']:.0%}"] if numbers["failed"] else []
    return pieces


def share_with_variance(rollouts: Sequence[Rollout]) -> float | None:
    """Return of how many tasks, of those with two rewards or more, the rewards differ; None where there are none."""
    groups = [{each.reward for each in group} for group in group_of(rollouts).values() if len(group) > 1]
    return sum(len(rewards) > 1 for rewards in groups) / len(groups) if groups else None


def tendency(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Draw how the reward went from epoch to epoch, in training and in validation."""
    found = []
    for name in ("train_reward", "val_reward"):
        values = [value for value in history.get(name, ()) if math.isfinite(value)]
        if len(values) > 1:
            found.append(f"{name} {sparkline(values)} {values[0]:.3g} -> {values[-1]:.3g}")
    return found


def sparkline(values: Sequence[float]) -> str:
    """Draw numbers as bars of eight heights; of many, means of neighbours."""
    size = -(-len(values) // _MOST_BARS)
    parts = [values[begin : begin + size] for begin in range(0, len(values), size)]
    means = [math.fsum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    top = len(_BARS) - 1
    return "".join(_BARS[round(top * (mean - low) / (high - low))] if high > low else _BARS[0] for mean in means)
