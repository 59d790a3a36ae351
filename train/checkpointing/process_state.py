"""What each process has of its own in a checkpoint: random numbers, an epoch's sums, values of the author's objects."""

from typing import Any

from beautilog import logger

from constants.counting import counted
from train.loop.meters import EpochMeter
from train.process_group import ProcessGroup, process_group
from train.seeding import preserved_random_states, random_states, seed_everything, seed_of

_CPU = ("python", "numpy", "torch")


def gathered(part: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint holds of all processes' own parts; nothing where there is one.

    Args:
        part: this process's own state: `random`, `start`, `meter`, `author`.
    """
    return {} if process_group().is_single_process else {"processes": process_group().all_gather_object(part)}


def own_part_of(state: dict[str, Any], here: ProcessGroup, seed: int) -> dict[str, Any]:
    """Return this process's part of a checkpoint, also where another number of processes has written it.

    The order of the data then goes on as it was, the other random numbers are new ones.

    Args:
        state: state of the checkpoint, as `capture` gave it.
        here: process group of the run that is resumed.
        seed: seed of all random generators of the run.

    Returns:
        `random`, `start`, `meter` and, where the checkpoint has it, `author`.
    """
    main = {"random": state["random"], "start": state["position"]["start"], "meter": state["meter"]}
    main |= {"author": state["author"]} if "author" in state else {}
    parts = state.get("processes") or [main]
    if len(parts) == here.world_size:
        return parts[here.rank]
    logger.warning(
        f"{counted(len(parts), 'process')} trained this run, {here.world_size} now: each step is of the "
        "same samples as it would have been; dropout and augmentation draw other numbers"
    )
    step = state["record"]["progress"]["step"]
    meter = None
    if parts[0]["meter"] is not None:
        whole = EpochMeter()
        for part in parts if here.is_main_process else []:
            one = EpochMeter()
            one.load_state_dict(part["meter"])
            whole.merge(one)
        meter = whole.state_dict()
    random = _moved(parts[0]["random"], here, seed_of(seed, here.rank, step))
    start = parts[0]["start"] and _moved(parts[0]["start"], here, seed_of(seed, here.rank, step))
    author = {"author": parts[0]["author"]} if "author" in parts[0] else {}
    return {"random": random, "start": start, "meter": meter, **author}


def _moved(states: dict[str, Any], here: ProcessGroup, seed: int) -> dict[str, Any]:
    """Turn the main process's random states into those of a process among another number of them."""
    order = states.get("shared") or {name: states[name] for name in _CPU}
    if here.is_single_process:
        return {**states, **order}
    with preserved_random_states():
        seed_everything(seed)
        own = random_states()
    data: dict[str, Any] = {name: states[name] for name in ("data", "objects") if name in states}
    return {**own, "loaders": states["loaders"], "shared": order, **data}
