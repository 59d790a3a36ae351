"""The report of several runs: their numbers side by side, what differs, and where they part."""

from collections.abc import Callable, Sequence
from pathlib import Path

from constants.counting import counted
from evaluation.report.markup import Markup, table, tag
from evaluation.report.page import page
from evaluation.report.parts import last_of, lines, number, plots, state_badge
from storage.monitor import best_title
from storage.run_comparison import history_lines, read_facts, settings_of
from storage.run_table import clock
from storage.saved_run import Run, RunDamagedError

_ABSENT = "-"


def comparison_page(runs: Sequence[Run]) -> str:
    """Make the page of several runs, of which the first is the one that the others are compared with.

    Args:
        runs: two or more runs to compare.

    Returns:
        HTML.
    """
    names = _names(runs)
    parts = {
        "numbers": ("Numbers", _numbers(runs, names)),
        "plots": ("Plots", plots(runs)),
        "settings": ("Settings", _differences("config.ini", runs, names, settings_of)),
        "environment": ("Environment", _differences("environment.json", runs, names, read_facts)),
        "history": ("Where they part", _partings(runs, names)),
    }
    head = tag("h1", f"{counted(len(runs), 'run')} of {', '.join(dict.fromkeys(run.trainer for run in runs))}")
    made = f"Made from {', '.join(str(run.path) for run in runs)}"
    return page(f"Comparison of {', '.join(names)}", head, parts, made)


def _names(runs: Sequence[Run]) -> list[str]:
    several = len({run.trainer for run in runs}) > 1
    return [f"{run.trainer.removesuffix('Trainer')} {run.id}" if several else run.id for run in runs]


def _numbers(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    rows = []
    for run, name in zip(runs, names, strict=True):
        seconds = run.summary.get("seconds")
        rows.append(
            (name, state_badge(run), number(run.summary.get("epochs")), number(run.best_value),
             number(run.best_epoch), number(last_of(run, "val_loss")), number(last_of(run, "train_loss")),
             "-" if seconds is None else clock(seconds), number(run.summary.get("steps_per_second"), 4))
        )  # fmt: skip
    best = best_title(run.monitor for run in runs)
    head = ["run", "state", "epochs", best, "at epoch", "last val loss", "last train loss", "time"]
    return table([*head, "steps/s"], rows, "The runs")


def _differences(
    file: str, runs: Sequence[Run], names: Sequence[str], read: Callable[[Path], dict[str, str]]
) -> Markup:
    """Show what is not the same in all runs."""
    found: list[dict[str, str]] = []
    problems = []
    for run in runs:
        try:
            found.append(read(run.path))
        except RunDamagedError as error:
            found.append({})
            problems.append(tag("p", error, class_="bad"))
    problems += [tag("p", f"There is no {file} in {run.id}.") for run in runs if not (run.path / file).exists()]
    every = list(dict.fromkeys(name for facts in found for name in facts))
    rows = [
        (name, *(facts.get(name, _ABSENT) for facts in found))
        for name in every
        if len({facts.get(name) for facts in found}) > 1
    ]
    caption = f"{len(rows)} of {len(every)} differ"
    same = tag("p", f"All {len(every)} are the same.") if every else None
    return tag("div", *problems, table(("name", *names), rows, caption) if rows else same)


def _partings(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    parts = []
    for run, name in zip(runs[1:], names[1:], strict=True):
        parts += [tag("h3", f"{names[0]} against {name}"), lines(history_lines(runs[0], run))]
    return tag("div", *parts)
