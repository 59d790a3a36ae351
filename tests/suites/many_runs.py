"""Trains a trainer with many settings in one process, or in several that torchrun starts: each start takes seconds.

    python tests/suites/many_runs.py SharedTrainer RESULTS.json '[["accumulation_steps=3"], ["loader=made"]]'

It is run in the project's folder. A setting `resume=RUN` goes on with a run.
"""

import json
import os
import sys

sys.path.insert(0, os.getcwd())

from config import ConfigParser
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer, RunOptions
from train.loop.progress import use_plain_lines_off_terminal
from train.process_group import joined_process_group


def train(name: str, settings: list[str]) -> dict[str, object]:
    """Run one; returns its folder, or the error."""
    entry = TRAINER_REGISTRY.entry(name)
    resume = [word.removeprefix("resume=") for word in settings if word.startswith("resume=")]
    ConfigParser.use(None, [word for word in settings if not word.startswith("resume=")], entry.section)
    BaseTrainer.options = RunOptions(resume=resume[0] if resume else None)
    try:
        trainer = entry.load()()
        with trainer.session():
            trainer.train()
    except (Exception, KeyboardInterrupt) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"run": str(trainer.run_folder.shown)}


def main() -> None:
    """Run all, one after the other."""
    name, out, cases = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    use_plain_lines_off_terminal()
    with joined_process_group(1.0):
        results = [train(name, settings) for settings in cases]
    rank = int(os.environ.get("RANK", 0))
    with open(out if rank == 0 else f"{out}.{rank}", "w") as stream:
        json.dump(results, stream)


if __name__ == "__main__":
    main()
