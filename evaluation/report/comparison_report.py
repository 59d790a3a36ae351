"""The report of several runs: their numbers side by side, what differs, and where they part."""

from collections.abc import Callable, Sequence
from pathlib import Path

from constants.counting import counted
from evaluation.report.markup import Markup, joined, table, tag
from evaluation.report.page import page
from evaluation.report.parts import last_of, lines, number, plots, state_badge
from storage.run_comparison import history_lines, read_facts, settings_of
from storage.run_names import run_names
from storage.run_table import clock
from storage.saved_run import Run, RunDamagedError
from storage.verdict import at_epoch, common_monitor, further_metrics, standings, verdict_line

_ABSENT = "-"


def comparison_page(runs: Sequence[Run]) -> str:
    """Make the page of several runs, of which the first is the one that the others are compared with.

    Args:
        runs: two or more runs to compare.

    Returns:
        HTML.
    """
    names = run_names(runs)
    parts = {
        "numbers": ("Numbers", _numbers(runs, names)),
        "settings": ("Settings that differ", _differences("config.ini", runs, names, settings_of)),
        "plots": ("Plots", plots(runs)),
        "history": ("Where they part", _partings(runs, names)),
        "environment": ("Environment", _differences("environment.json", runs, names, read_facts)),
    }
    title = tag("h1", f"{counted(len(runs), 'run')} of {', '.join(dict.fromkeys(run.trainer for run in runs))}")
    verdict = verdict_line(runs, names)
    head = joined([title, tag("p", verdict[:1].upper(), verdict[1:], class_="verdict")])
    made = f"Made from {', '.join(str(run.path) for run in runs)}"
    return page(f"Comparison of {', '.join(names)}", head, parts, made)


def _numbers(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    """Show the runs, the best first, with what the trainer itself measures at each run's best epoch."""
    order = standings(runs, names)
    monitor = common_monitor(runs)
    metrics = further_metrics(runs)
    noted = any(run.label.note for run in runs)
    rows = []
    for item in order:
        run, seconds = item.run, item.run.summary.get("seconds")
        there = at_epoch(item)
        rows.append(
            (item.name, tag("span", run.id, class_="whole"), state_badge(run), number(item.value), number(item.epoch),
             *(number(there.get(name)) for name in metrics), number(last_of(run, "train_loss")),
             number(run.summary.get("epochs")), "-" if seconds is None else clock(seconds),
             number(run.summary.get("steps_per_second"), 4), *([run.label.note or ""] if noted else []))
        )  # fmt: skip
    head = ["called", "run", "state", f"best {monitor.name}", "at epoch", *metrics, "last train_loss", "epochs", "time"]
    caption = f"The runs, the best first{'; metrics are of the best epoch' if metrics else ''}"
    marked = [0] if order[0].value is not None else []
    return table([*head, "steps/s", *(["note"] if noted else [])], rows, caption, marked)


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
        parted = history_lines(runs[0], run, (names[0], name))
        parts += [tag("h3", f"{names[0]} against {name}"), lines(parted)]
    return tag("div", *parts)
