"""`plot.py --runs`: the table of saved runs, of those that were named, in the order that was asked for."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from constants import command
from constants.metrics import direction_of
from constants.nearest import nearest
from storage.folded_runs import folded, with_groups
from storage.monitor import Monitor
from storage.run_table import RunRow, best_first, json_of_runs, list_runs, table_of_runs
from storage.saved_run import RunNotFoundError


def list_command(arguments: argparse.Namespace) -> int:
    """List runs: `--runs`, with the names, `--best`, `--unfold` and `--json`.

    Args:
        arguments: arguments of `plot.py`.

    Returns:
        The exit code.

    Raises:
        RunNotFoundError: a name, or a metric, that no run has.
    """
    rows, skipped = list_runs(arguments.artifacts, _judged_by(arguments.best))
    sys.stderr.writelines(f"{line}\n" for line in skipped)
    rows = with_groups(rows, arguments.artifacts) if arguments.unfold else folded(rows, arguments.artifacts)
    if arguments.run:
        rows = _matching(rows, arguments)
    if arguments.best is not None:
        if arguments.best and all(row.best_value is None for row in rows) and rows:
            raise RunNotFoundError(_no_metric(arguments, rows))
        rows = best_first(rows)
    if arguments.json:
        sys.stdout.write(json_of_runs(rows))
    elif rows:
        sys.stdout.write(table_of_runs(rows))
    else:
        sys.stdout.write(
            f"There are no runs in {arguments.artifacts / 'models'}. `{command('train')} NAME` starts one, "
            f"`{command('train')} --list` shows the names; runs elsewhere: --artifacts DIR.\n"
        )
    return 0


def _judged_by(given: str | None) -> Monitor | None:
    """Return what `--best METRIC` judges all runs by; `METRIC:min` and `METRIC:max` say the direction.

    Raises:
        RunNotFoundError: neither the name nor the ending says it.
    """
    if not given:
        return None
    name, _, ending = given.rpartition(":")
    if name and ending in ("min", "max"):
        return Monitor(name, "min" if ending == "min" else "max")
    direction = direction_of(given)
    if direction is None:
        raise RunNotFoundError(
            f"--best {given}: its name does not say whether it is better low or high; write --best {given}:min or "
            f"--best {given}:max"
        )
    return Monitor(given, direction)


def _matching(rows: Sequence[RunRow], arguments: argparse.Namespace) -> list[RunRow]:
    """Return the rows of the trainers, runs and groups that were named.

    Raises:
        RunNotFoundError: a name matches nothing.
    """
    found: list[RunRow] = []
    for text in arguments.run:
        matched = [row for row in rows if _is_meant(row, text)]
        if not matched:
            raise RunNotFoundError(_no_match(text, rows, arguments.artifacts))
        found += matched
    return [row for row in rows if row in found]


def _is_meant(row: RunRow, text: str) -> bool:
    model = row.trainer.lower().removesuffix("trainer")
    folder = Path(row.path).parent.parent.name.lower() if row.kind == "run" else model
    trainer = text.lower().removesuffix("trainer")
    return trainer in (model, folder) or text in (row.run, row.name, row.group, *row.members)


def _no_match(text: str, rows: Sequence[RunRow], artifacts: Path) -> str:
    trainers = sorted({row.trainer.removesuffix("Trainer") or row.trainer for row in rows})
    names = [row.name for row in rows if row.name]
    near = nearest(text.removesuffix("Trainer"), [*trainers, *names, *(row.run for row in rows)], cutoff=0.7)
    hint = f"; did you mean {near}?" if near else ""
    there = f" There are runs of {', '.join(trainers)}" if trainers else " There are no runs at all"
    called = f", and the names {', '.join(names)}" if names else ""
    return f"no run of '{text}', nor one of that name, in {artifacts / 'models'}{hint or '.'}{there}{called}."


def _no_metric(arguments: argparse.Namespace, rows: Sequence[RunRow]) -> str:
    known = sorted({name for row in list_runs(arguments.artifacts)[0] for name in (row.monitor, *row.metrics)})
    metric = arguments.best.removesuffix(":min").removesuffix(":max")
    near = nearest(metric, known, cutoff=0.7)
    hint = f"; did you mean {near}?" if near else ""
    return f"--best {metric}: none of these {len(rows)} rows has it; there are {', '.join(known) or 'none'}{hint}"
