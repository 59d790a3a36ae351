"""Random generators that are objects of an author's: their states as plain data, and back."""

import random
from typing import Any, TypeGuard

import numpy as np
import torch

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def is_generator(value: object) -> TypeGuard[Generator]:
    """Say whether an object is a random generator whose state can be taken.

    Args:
        value: any object.
    """
    return isinstance(value, Generator) and not isinstance(value, random.SystemRandom)


def generator_state(generator: Generator) -> dict[str, Any]:
    """Return a generator's state as plain data.

    Args:
        generator: generator of torch, numpy or Python.
    """
    if isinstance(generator, torch.Generator):
        return {"kind": "torch", "state": generator.get_state(), "device": str(generator.device)}
    if isinstance(generator, np.random.Generator):
        return {"kind": "numpy", "state": generator.bit_generator.state}
    if isinstance(generator, np.random.RandomState):
        return {"kind": "numpy legacy", "state": generator.get_state(legacy=False)}
    return {"kind": "python", "state": generator.getstate()}


def with_state(generator: object, state: dict[str, Any]) -> Generator:
    """Return a generator with a state: the given one, where it is of the same kind, else a new one.

    Args:
        generator: what is there now.
        state: state that `generator_state` gave.
    """
    kind, held = state["kind"], state["state"]
    if kind == "torch":
        drawn = generator if isinstance(generator, torch.Generator) else torch.Generator(state["device"])
        drawn.set_state(held)
        return drawn
    if kind == "numpy":
        same = isinstance(generator, np.random.Generator) and (
            type(generator.bit_generator).__name__ == held["bit_generator"]
        )
        known = generator if same else np.random.Generator(getattr(np.random, held["bit_generator"])())
        known.bit_generator.state = held  # type: ignore[attr-defined]  # `same` says that it is one
        return known  # type: ignore[return-value]  # likewise
    if kind == "numpy legacy":
        legacy = generator if isinstance(generator, np.random.RandomState) else np.random.RandomState()
        legacy.set_state(held)
        return legacy
    plain = generator if isinstance(generator, random.Random) else random.Random()
    plain.setstate(held)
    return plain
