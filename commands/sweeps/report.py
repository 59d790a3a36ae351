"""What a sweep leaves: trials.json, best.ini, the picture, the published weights of the best run, a table."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beautilog import logger
from optuna.trial import FrozenTrial, TrialState

from commands.sweeps.spec import Dimension
from commands.sweeps.study import TrialStudy
from config import BaseTrainerConfig, ConfigParser
from storage.files import write_atomically, write_json
from storage.run_folder import RunFolder
from storage.sweeps import SCHEMA_VERSION, load_sweep, sweep_lines

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def save_trials(study: TrialStudy, trainer: str, importance: dict[str, float] | None = None) -> None:
    """Write trials.json, from which table and picture are made.

    Args:
        study: trials of the sweep.
        trainer: class name of the trainer.
        importance: share of the differences that each key explains.
    """
    spec = study.spec
    content = {
        "schema_version": SCHEMA_VERSION,
        "trainer": trainer,
        "sweep": spec.name,
        "metric": spec.metric,
        "direction": spec.direction,
        "planned": spec.trials,
        "space": {key: _axis(dimension) for key, dimension in spec.space.items()},
        "importance": importance,
        "trials": [_row(trial, spec.direction) for trial in study.trials()],
    }
    write_json(study.folder / "trials.json", content)


def report(
    study: TrialStudy, trainer: str, runs: Path, config_of: Callable[[dict[str, Any]], BaseTrainerConfig]
) -> int:
    """Write what a sweep leaves and show its table.

    Args:
        study: trials of the sweep.
        trainer: class name of the trainer.
        runs: folder of the trials' runs.
        config_of: function that gives the resolved settings for a trial's values.

    Returns:
        The exit code: 0, or 4 where no trial came to its end.
    """
    save_trials(study, trainer, study.importance())
    sweep = load_sweep(study.folder)
    lines = sweep_lines(sweep)
    if sweep.best is not None and sweep.best.run is not None:  # a complete one has a run
        from evaluation.plots.sweep_plot import plot_sweep  # matplotlib takes a second to import

        run = RunFolder.of(runs / sweep.best.run, runs.parents[2], runs.parent.name)
        write_atomically(study.folder / "best.ini", _best_ini(study, config_of(sweep.best.params), run.id).encode())
        if (run.path / "model.safetensors").exists():
            run.publish()
        lines += ["", f"best settings: {study.folder / 'best.ini'}", f"picture: {plot_sweep(sweep)}"]
    sys.stdout.write("\n".join(lines) + "\n")
    if sweep.done and sweep.best is None:
        logger.error("no trial came to its end")
        return 4
    return 0


def _axis(dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choices":
        return {"kind": "choices", "choices": list(dimension.choices)}
    return {"kind": dimension.kind, "low": dimension.low, "high": dimension.high}


def _row(trial: FrozenTrial, direction: str) -> dict[str, Any]:
    attributes = trial.user_attrs
    value = trial.value
    if trial.state != TrialState.COMPLETE and trial.intermediate_values:
        value = (max if direction == "maximize" else min)(trial.intermediate_values.values())
    return {
        "number": trial.number + 1,
        "state": "failed" if "error" in attributes else _STATES.get(trial.state, "running"),
        "value": value,
        "epochs": attributes.get("epochs") or max(trial.intermediate_values, default=0),
        "run": attributes.get("run"),
        "params": trial.params,
        "error": attributes.get("error"),
    }


def _best_ini(study: TrialStudy, config: BaseTrainerConfig, run: str) -> str:
    """Return the best run's section: what was searched first, then all the rest, so that it can be run as it is."""
    section, *lines = ConfigParser.dump(config).splitlines()
    found = [line for line in lines if line.split(" = ")[0] in study.spec.space]
    head = f"; The best of sweep '{study.spec.name}': run {run}. Run it by --config, or paste it into config.ini."
    rest = [line for line in lines if line not in found]
    return "\n".join([head, section, "; found by the sweep", *found, "; as in all its trials", *rest, ""])
