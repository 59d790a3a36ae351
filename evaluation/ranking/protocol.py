"""The runs of the benchmark of rankers, `python -m evaluation`: one for each fold of each split.

Each fold is a run of `train.py SimilarityTransformerTrainer` in a process of its own, which sees the fold's training
tasks and models and writes its scores of the test to rankings.json; this module starts the runs and reads
the scores; `comparison.py` compares.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from beautilog import logger

from data.data_error import DataError
from data.ranking_world import FOLDS
from evaluation.ranking.comparison import RANKERS, Job
from evaluation.ranking.ranker_training import training_words


def run_rankers(splits: Sequence[str], settings: Sequence[str], out: Path, workers: int) -> dict[Job, dict[str, Any]]:
    """Train a ranker for each fold of some splits, alone and hybrid.

    Args:
        splits: names of the splits, keys of `SPLITS`.
        settings: `key=value` for every run.
        out: folder of the runs; a fold whose scores are there already, by the same settings, is not run again.
        workers: processes at a time, each of one thread.

    Returns:
        The content of each run's rankings.json.

    Raises:
        DataError: a run failed; the text has its last lines.
    """
    jobs = [Job(split, fold, ranker) for split in splits for fold in range(FOLDS[split]) for ranker in RANKERS]
    started, done = time.monotonic(), 0
    results = {}
    with ThreadPoolExecutor(workers) as pool:
        for job, rankings in zip(jobs, pool.map(lambda job: _run(job, settings, out), jobs), strict=True):
            results[job] = rankings
            done += 1
            left = (time.monotonic() - started) / done * (len(jobs) - done)
            logger.info(
                f"split {job.split}, fold {job.fold}, {job.ranker}: done ({done}/{len(jobs)}, {left:.0f} s left)"
            )
    return results


def _run(job: Job, settings: Sequence[str], out: Path) -> dict[str, Any]:
    folder = out / "runs" / job.folder
    own = [f"split={job.split}", f"fold={job.fold}", f"hybrid={RANKERS[job.ranker]}", "plot_at_end=off", *settings]
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == own and (found := _rankings(folder)):
        return found
    command = training_words(own, folder)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = _rankings(folder)
    if done.returncode or found is None:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise DataError(f"`{' '.join(command[1:])}` ended with exit code {done.returncode}:\n{tail}")
    stamp.write_text(json.dumps(own))
    return found


def _rankings(folder: Path) -> dict[str, Any] | None:
    files = sorted(folder.glob("models/*/runs/*/rankings.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(files[-1].read_text()) if files else None
