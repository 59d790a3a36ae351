"""The report of one run."""

import math
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config import ConfigError, ConfigParser
from evaluation.report.failure import failure_section
from evaluation.report.markup import Markup, details, joined, section, table, tag
from evaluation.report.page import page
from evaluation.report.parts import last_of, lines, number, plots, state_badge, tiles
from evaluation.report.svg import inline_svg
from evaluation.run_comparison import by_epoch, read_facts
from evaluation.run_pictures import pictures_of
from evaluation.run_table import clock, start_of
from evaluation.runs import Run, RunDamagedError, read_environment, read_metrics, read_settings, settings_in

_TOTALS = ("epochs", "steps", "seconds", "steps_per_second", "parameters", "trainable", "bytes", "saving")
_MOST_ROWS = 400  # of the history's table
_LOG_SHOWN, _LOG_LINES, _LOG_BYTES = 20, 400, 2**17  # lines, lines before these, of which part of train.log


def run_page(run: Run) -> str:
    """Make the page of a run; what of it can't be read is told in its place.

    Args:
        run: which.

    Returns:
        HTML.
    """
    content = read_metrics(run.path)
    environment, problems = _read(read_environment, run.path)
    settings, more = _read(read_settings, run.path)
    command = environment.get("command") if isinstance(environment.get("command"), list) else []
    parts = {
        "failure": failure_section(run.path, content.get("error")),
        "results": _results(run),
        "plots": _section("Plots", plots([run]), "plots"),
        "pictures": _pictures(run.path),
        "history": _history(run),
        "settings": _settings(settings, [str(word) for word in command[2:]], more),
        "environment": _environment(run.path, environment, command, problems),
        "log": _log(run.path),
    }
    titles = {
        "failure": "What went wrong", "results": "Results", "plots": "Plots", "pictures": "Pictures",
        "history": "History", "settings": "Settings", "environment": "Environment", "log": "Log",
    }  # fmt: skip
    name = run.trainer.removesuffix("Trainer") or run.trainer
    sections = {place: part for place, part in parts.items() if part}
    made = f"Made from {run.path} by python plot.py --report on {time.strftime('%Y-%m-%d %H:%M')}."
    contents = {place: titles[place] for place in sections}
    return page(f"{name} {run.id}", _head(run, name, settings, command), list(sections.values()), contents, made)


def _read(read: Any, path: Path) -> tuple[dict[str, Any], list[Markup]]:
    """Read one file of a run; where it is damaged, nothing, and a line that says so."""
    try:
        return read(path), []
    except RunDamagedError as error:
        return {}, [tag("p", error, class_="bad")]


def _section(title: str, body: Markup | None, place: str) -> Markup | None:
    return section(title, body, id_=place) if body else None


def _head(run: Run, name: str, settings: dict[str, str], command: list[Any]) -> Markup:
    start = start_of(run.id)
    said = tag("code", "python ", " ".join(map(str, command[1:]))) if command else None
    return joined(
        [
            tag("h1", f"{name} {run.id}"),
            tag("p", state_badge(run), f" started {start.replace('T', ' ')}" if start else None),
            tag("p", said) if said else None,
            tiles(list(_tiles(run, settings))),
        ]
    )


def _tiles(run: Run, settings: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    summary = run.summary
    validated = run.series.get("val_loss", ([], []))[0]
    if run.best_val_loss is None:
        yield "best validation loss", "-", "not validated yet"
    else:
        yield "best validation loss", number(run.best_val_loss), f"at epoch {run.best_epoch}"
        yield (
            "last validation loss",
            number(last_of(run, "val_loss")),
            f"at epoch {validated[-1]:g}" if validated else "",
        )
    yield "last training loss", number(last_of(run, "train_loss")), ""
    epochs = summary.get("epochs")
    yield "epochs", number(epochs), f"of {settings['epochs']}" if settings.get("epochs") else ""
    yield "steps", number(summary.get("steps")), ""
    seconds, rate = summary.get("seconds"), summary.get("steps_per_second")
    yield "time", "-" if seconds is None else clock(seconds), f"{number(rate, 4)} steps/s" if rate else ""
    if summary.get("parameters") is not None:
        trainable = summary.get("trainable")
        remark = "" if trainable in (None, summary["parameters"]) else f"{number(trainable)} trainable"
        yield "parameters", number(summary["parameters"]), remark


def _results(run: Run) -> Markup | None:
    """Show what the trainer itself put into the summary; `x_low` and `x_high` stand beside `x`."""
    own = {name: value for name, value in run.summary.items() if name not in _TOTALS}
    rows = []
    for name, value in own.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in own:
            continue
        low, high = own.get(f"{name}_low"), own.get(f"{name}_high")
        shown = ", ".join(map(str, value)) if isinstance(value, list) else number(value)
        rows.append((name, shown, "" if low is None or high is None else f"{number(low)} to {number(high)}"))
    if not rows:
        return None
    intervals = any(row[2] for row in rows)
    head = ("result", "value", "interval") if intervals else ("result", "value")
    body = table(head, [row[: len(head)] for row in rows], "What the trainer reports at its end")
    return section("Results", body, id_="results")


def _pictures(path: Path) -> Markup | None:
    figures: list[Markup] = []
    try:
        for place, picture in enumerate(pictures_of(path)):
            title = picture.name.replace("_", " ").capitalize()
            drawing = inline_svg(picture.figure, f"picture{place}", title)
            parts = (tag("h3", title), tag("div", drawing, tabindex=0), tag("figcaption", picture.caption))
            figures.append(tag("figure", *parts, class_="wide"))
    except RunDamagedError as error:
        figures.append(tag("p", error, class_="bad"))
    return section("Pictures", *figures, id_="pictures") if figures else None


def _history(run: Run) -> Markup | None:
    """Show every number of every epoch; of very long runs some epochs, among them the best and the last."""
    names = sorted(run.series, key=lambda name: not name.endswith("_loss"))  # the losses first
    columns = {name: by_epoch(*run.series[name]) for name in names}
    places = sorted({place for column in columns.values() for place in column})
    if not places:
        return None
    apart = -(-len(places) // _MOST_ROWS)
    shown = [
        place for index, place in enumerate(places)
        if index % apart == 0 or place is places[-1] or place[0] == run.best_epoch
    ]  # fmt: skip
    rows = [(f"{place[0]:g}", *(_value(column, place) for column in columns.values())) for place in shown]
    best = [row for row, place in enumerate(shown) if place[0] == run.best_epoch]
    note = f"Every {apart}th of {len(places)} rows; metrics.json has all." if apart > 1 else ""
    caption = f"Numbers by epoch. {note}" + (" The best epoch stands out." if best else "")
    return section("History", table(("epoch", *columns), rows, caption.strip(), best), id_="history")


def _value(column: dict[tuple[float, int], float], place: tuple[float, int]) -> str:
    return "" if place not in column else "NaN" if math.isnan(column[place]) else number(column[place])


def _settings(settings: dict[str, str], words: list[str], problems: list[Markup]) -> Markup | None:
    """Show the settings, and which of them are not what config.ini says now or were set on the command line."""
    trainer = settings.get("")
    keys = {name: value for name, value in settings.items() if name}
    if not keys:
        return section("Settings", *problems, id_="settings") if problems else None
    typed = {name.strip(): value.strip() for name, equals, value in (word.partition("=") for word in words) if equals}
    now = _settings_now(trainer)
    rows, changed = [], []
    for row, (name, value) in enumerate(keys.items()):
        remarks = ["set on the command line"] if name in typed else []
        if now is not None and now.get(name) != value:
            remarks.append(f"config.ini: {now[name]}" if name in now else "no such key now")
        changed += [row] if remarks else []
        rows.append((name, value, "; ".join(remarks)))
    unknown = f"; the project has no section [{trainer}] to compare them with" if now is None else ""
    compared = "" if now is None else ", or are not what the project's config.ini says now"
    source = f"Those that stand out were set on the command line{compared}{unknown}."
    caption = f"As the run resolved them. {source}"
    changes = table(("changed", "value", "how"), [rows[row] for row in changed], "Settings that are not the defaults")
    every = details(f"All {len(rows)} settings", table(("setting", "value", "remark"), rows, caption, changed))
    return section("Settings", changes if changed else tag("p", "All are the defaults."), every, id_="settings")


def _settings_now(trainer: str | None) -> dict[str, str] | None:
    """Return what the project's config.ini gives a trainer today, written as a run writes it; None if unknown."""
    try:
        config_class = ConfigParser.sections().get(trainer or "")
        text = ConfigParser.dump(ConfigParser.get(config_class)) if config_class else None
    except ConfigError:
        return None
    return None if text is None else settings_in(text)


def _environment(path: Path, environment: dict[str, Any], command: list[Any], problems: list[Markup]) -> Markup | None:
    if not environment:
        return section("Environment", *problems, id_="environment") if problems else None
    try:
        facts = read_facts(path)
    except RunDamagedError as error:
        return section("Environment", tag("p", error, class_="bad"), id_="environment")
    if command:
        facts = {"command": shlex.join(map(str, command)), "folder": environment.get("working_directory", "")} | facts
    git = environment.get("git") if isinstance(environment.get("git"), dict) else {}
    if git.get("commit"):
        facts["commit"] = git["commit"]
    parts = [table(("fact", "value"), facts.items(), "Where and from what the run was made")]
    if git.get("diff"):
        lines_of = len(str(git["diff"]).splitlines())
        parts.append(details(f"Uncommitted changes ({lines_of} lines)", tag("pre", git["diff"], tabindex=0)))
    if git.get("untracked"):
        parts.append(details(f"Untracked files ({len(git['untracked'])})", lines(git["untracked"])))
    return section("Environment", *parts, id_="environment")


def _log(path: Path) -> Markup | None:
    """Show the end of train.log."""
    try:
        with (path / "train.log").open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _LOG_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return None
    every = text.splitlines()[1 if size > _LOG_BYTES else 0 :]  # the first one may be cut
    if not every:
        return None
    earlier, last = every[:-_LOG_SHOWN][-_LOG_LINES:], every[-_LOG_SHOWN:]
    more = details(f"{len(earlier)} lines before these", lines(earlier)) if earlier else None
    return section("Log", tag("p", "The end of train.log.", class_="faint"), lines(last), more, id_="log")
