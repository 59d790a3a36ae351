"""Random number generators: seed them all, and save and restore their states as plain data."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from data.shares import SharedDraws


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (every device).

    Args:
        seed: from 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """Return the states of all generators: ints, strings and uint8 tensors, nothing that needs pickle."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned; CUDA states only where the number of devices is the same."""
    random.setstate(states["python"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class RandomSources:
    """All generators that a run draws from: the global ones, and those that its loaders have of their own.

    Args:
        loaders: whose `generator`, or whose samplers', torch.Generators may be.
        shared: what several processes draw alike; None for one.
    """

    def __init__(self, *loaders: Any, shared: SharedDraws | None = None) -> None:
        self._shared = shared
        places = []
        for loader in loaders:
            # A loader that draws by (seed, epoch) begins each pass from these.
            if not getattr(loader, "draws_by_epoch", False):
                batches = getattr(loader, "batch_sampler", None)
                places += [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
        found = [getattr(place, "generator", None) for place in places]
        self._own = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def states(self) -> dict[str, Any]:
        """Return all states, as `random_states` does."""
        shared = {} if self._shared is None else {"shared": self._shared.state()}
        return random_states() | {"loaders": [generator.get_state() for generator in self._own]} | shared

    def set_states(self, states: dict[str, Any]) -> None:
        """Restore what `states` returned."""
        set_random_states(states)
        if self._shared is not None:
            self._shared.set_state(states["shared"])
        for generator, state in zip(self._own, states["loaders"], strict=True):
            generator.set_state(state)


@contextmanager
def preserved_random_states() -> Iterator[None]:
    """Run a block that may draw random numbers without anybody noticing."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)
