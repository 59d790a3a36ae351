"""Random number generators: seed them all, and save and restore their states as plain data."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from data.loaders import Loader
from data.sharding import SharedRNG
from train.checkpointing.author_state import AuthorState
from train.copies import copied

_PRIME = 1_000_003


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (every device).

    Args:
        seed: from 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_of(seed: int, *words: int) -> int:
    """Return a seed that depends on a run's seed, a process's rank and more.

    Args:
        seed: seed of all random generators of the run.
        words: numbers that tell this seed from others of the run, such as the process's rank.
    """
    for word in words:
        seed = (seed * _PRIME + word + 1) % 2**32
    return seed


def draw_apart(shared_rng: SharedRNG | None, seed: int, rank: int) -> None:
    """Let each of several processes draw random numbers of its own from now on, such as dropout's.

    Args:
        shared_rng: random numbers that the processes go on drawing alike; None where there is one process, for which
            nothing changes.
        seed: seed of all random generators of the run.
        rank: number of this process, from 0.
    """
    if shared_rng is not None:
        shared_rng.begin()
        seed_everything(seed_of(seed, rank))


def numpy_state() -> tuple[str, np.ndarray, int, int, float]:
    """Return the state of numpy's own generator, in the form that it has always had."""
    return cast(tuple[str, np.ndarray, int, int, float], np.random.get_state())  # a dict only where it is asked for


def random_states() -> dict[str, Any]:
    """Return the states of all generators: ints, strings and uint8 tensors, nothing that needs pickle."""
    kind, keys, position, has_gauss, gauss = numpy_state()
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
        loaders: loaders that may have a torch.Generator as `generator`, or samplers that have one.
        shared: random numbers that several processes draw alike; None for one process.

    Attributes:
        data: what a run changes in the objects of its loaders, their generators too; None until the trainer is built.
    """

    def __init__(self, *loaders: Loader, shared: SharedRNG | None = None) -> None:
        self._shared = shared
        self.data: AuthorState | None = None
        places = []
        for loader in loaders:
            # A loader that draws by (seed, epoch) begins each pass from these.
            if not getattr(loader, "draws_by_epoch", False):
                batches = getattr(loader, "batch_sampler", None)
                places += [loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
        found = [getattr(place, "generator", None) for place in places]
        self._own = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    @property
    def data_draws(self) -> bool:
        """Whether objects of the loaders have generators, or states, of their own."""
        return self.data is not None and self.data.draws

    def state_dict(self) -> dict[str, Any]:
        """Return all states, as `random_states` does."""
        shared = {} if self._shared is None else {"shared": self._shared.state_dict()}
        found = random_states() | {"loaders": [generator.get_state() for generator in self._own]} | shared
        if self.data is None:
            return found
        data = self.data.state_dict()
        objects = {path: copied(part.state_dict()) for path, part in self.data.objects.items()}
        found |= {"data": data} if data else {}
        return found | ({"objects": objects} if objects else {})

    def load_state_dict(self, states: dict[str, Any], inside_pass: bool = False) -> None:
        """Restore what `state_dict` returned.

        Args:
            states: states of all generators, and of objects of the loaders.
            inside_pass: whether a pass over the loader goes on. A loader or sampler that has a state of its own has
                come to its place by the pass itself, and would take a state for where the next pass begins.
        """
        set_random_states(states)
        if self._shared is not None:
            self._shared.load_state_dict(states["shared"])
        for generator, state in zip(self._own, states["loaders"], strict=True):
            generator.set_state(state)
        if self.data is not None:
            self.data.load_state_dict(states.get("data", {}))
            for path, part in self.data.objects.items():
                if not inside_pass and path in states.get("objects", {}):
                    part.load_state_dict(copied(states["objects"][path]))


@contextmanager
def preserved_random_states() -> Iterator[None]:
    """Run a block that may draw random numbers without anybody noticing."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)
