"""Trains a trainer with many settings in one process, or in several: each start takes seconds.

    python tests/suites/many_runs.py SharedTrainer RESULTS.json '[["accumulation_steps=3"], ["loader=made"]]' 2

It is run in the project's folder. The processes are forked when torch is there, and get what torchrun would give them:
a launcher and each of its processes would import torch anew; torchrun itself starts the runs of other tests. A setting
`resume=RUN` goes on with a run. Processes end together: an error in one of them alone would put its next runs out of
step with the others', and what is told then is not what went wrong.
"""

import faulthandler
import json
import os
import socket
import sys
import traceback
from datetime import timedelta

sys.path.insert(0, os.getcwd())

import torch.distributed as dist

from config import ConfigParser
from storage.log_lines import use_log_lines
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer, RunOptions
from train.process_group import joined_process_group

MINUTES = 1.0  # that a process waits for another one
SHOW_AFTER = 45  # seconds after which a run's stack is shown, in time for who waits for it


def train(name: str, settings: list[str]) -> dict[str, object]:
    """Run one; returns its folder, or the error, whose traceback is printed."""
    entry = TRAINER_REGISTRY.entry(name)
    resume = [word.removeprefix("resume=") for word in settings if word.startswith("resume=")]
    ConfigParser.use(None, [word for word in settings if not word.startswith("resume=")], entry.section)
    BaseTrainer.options = RunOptions(resume=resume[0] if resume else None)
    try:
        trainer = entry.load()()
        with trainer.session():
            trainer.train()
    except (Exception, KeyboardInterrupt) as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    return {"run": str(trainer.run_folder.shown)}


def require_all(run: str, rank: int, size: int, result: dict[str, object]) -> None:
    """Wait until all processes have ended a run, all well or all with an error.

    By the store, since one that has failed alone finds the others in some other collective operation.

    Raises:
        RuntimeError: one has failed alone.
    """
    store, outcome = dist.distributed_c10d._get_default_store(), "failed" if "error" in result else "done"
    store.set(f"{run} of {rank}", outcome)
    try:
        store.wait([f"{run} of {other}" for other in range(size)], timedelta(minutes=MINUTES))
    except dist.DistStoreError:
        raise RuntimeError(f"{run} has {outcome} in process {rank}, and has not ended in another: {result}") from None
    outcomes = [store.get(f"{run} of {other}").decode() for other in range(size)]
    if len(set(outcomes)) > 1:
        raise RuntimeError(f"{run} has ended differently in the processes: {outcomes}; here {result}")


def in_processes(count: int) -> int:
    """Run all in several processes; returns the largest exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = 1
            try:
                main()
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children)


def main() -> None:
    """Run all, one after the other."""
    name, out, cases = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    use_log_lines()
    rank, results = int(os.environ.get("RANK", 0)), []
    with joined_process_group(MINUTES) as group:
        for number, settings in enumerate(cases):
            faulthandler.dump_traceback_later(SHOW_AFTER)
            results.append(train(name, settings))
            faulthandler.cancel_dump_traceback_later()
            if not group.is_single_process:
                require_all(f"run-{number}", rank, group.world_size, results[-1])
    with open(out if rank == 0 else f"{out}.{rank}", "w") as stream:
        json.dump(results, stream)


if __name__ == "__main__":
    processes = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    if processes > 1:
        sys.exit(in_processes(processes))
    main()
