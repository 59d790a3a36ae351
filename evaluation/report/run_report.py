"""The report of one run."""

import math
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from config import ConfigError, ConfigParser
from constants.counting import counted
from evaluation.plots.run_pictures import pictures_of
from evaluation.report.agents_part import transcripts_part
from evaluation.report.failure import failure_part
from evaluation.report.language_part import data_part, is_account, samples_part
from evaluation.report.markup import Markup, details, joined, table, tag
from evaluation.report.page import page
from evaluation.report.parts import last_of, lines, number, plots, state_badge, tiles
from evaluation.report.segments_part import segments_part
from evaluation.report.svg import inline_svg
from storage.run_comparison import by_epoch, read_facts
from storage.run_table import clock, start_of
from storage.saved_run import (
    Run,
    RunDamagedError,
    numbers_at,
    read_environment,
    read_metrics,
    read_settings,
    settings_in,
)
from storage.test_results import read_test_result

_TOTALS = ("epochs", "steps", "seconds", "steps_per_second", "parameters", "trainable", "bytes", "saving")
_TILES = 3  # of the trainer's own metrics
_MOST_ROWS = 400  # of the history's table
_LOG_SHOWN, _LOG_LINES, _LOG_BYTES = 20, 400, 2**17  # lines, lines before these, of which part of train.log


def run_page(run: Run) -> str:
    """Make the page of a run; what of it can't be read is told in its place.

    Args:
        run: saved run to show.

    Returns:
        HTML.
    """
    environment, unread = _read(read_environment, run.path)
    settings, unset = _read(read_settings, run.path)
    command = environment.get("command")
    command = list(map(str, command)) if isinstance(command, list) else []
    parts = {
        "failure": ("What went wrong", failure_part(run.path, read_metrics(run.path).get("error"))),
        "results": ("Results", _results(run)),
        "test": ("Test", _test(run.path)),
        "samples": ("Samples", samples_part(run.path)),
        "transcripts": ("Transcripts", transcripts_part(run.path)),
        "data": ("Data", data_part(run.summary)),
        "plots": ("Plots", plots([run])),
        "pictures": ("Pictures", _pictures(run.path)),
        "history": ("History", _history(run)),
        "segments": ("Segments", segments_part(run.path)),
        "settings": ("Settings", unset or _settings(settings, command[2:])),
        "environment": ("Environment", unread or _environment(run.path, environment, command)),
        "log": ("Log", _log(run.path)),
    }
    name = run.trainer.removesuffix("Trainer") or run.trainer
    name = f"{name} {run.label.name}" if run.label.name else name
    return page(f"{name} {run.id}", _head(run, name, settings, command), parts, f"Made from {run.path}")


def _read(read: Callable[[Path], dict[str, Any]], path: Path) -> tuple[dict[str, Any], Markup | None]:
    """Read one file of a run; where it is damaged, nothing, and a line that says so."""
    try:
        return read(path), None
    except RunDamagedError as error:
        return {}, tag("p", error, class_="bad")


def _head(run: Run, name: str, settings: dict[str, str], command: list[str]) -> Markup:
    start = start_of(run.path)
    return joined([
        tag("h1", f"{name} {run.id}"),
        tag("p", state_badge(run), f" started {start.replace('T', ' ')}" if start else None),
        tag("p", run.label.note) if run.label.note else None,
        tag("p", tag("code", "python ", shlex.join(command[1:]))) if command else None,
        tiles(list(_tiles(run, settings))),
    ])  # fmt: skip


def _tiles(run: Run, settings: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    summary = run.summary
    monitored = run.monitor.name
    if run.best_value is None:
        yield f"best {monitored}", "-", "not validated yet"
    else:
        yield f"best {monitored}", number(run.best_value), f"at epoch {run.best_epoch}"
    for name in dict.fromkeys((monitored, "val_loss")):
        if name in run.series:
            yield f"last {name}", number(last_of(run, name)), f"at epoch {run.series[name][0][-1]:g}"
    at_best = numbers_at(run.series, run.best_epoch)
    for name in [name for name in at_best if name.startswith("val_") and name not in (monitored, "val_loss")][:_TILES]:
        yield name, number(at_best[name]), "at the best epoch"
    yield "last train_loss", number(last_of(run, "train_loss")), ""
    epochs = summary.get("epochs")
    yield "epochs", number(epochs), f"of {settings['epochs']}" if settings.get("epochs") else ""
    yield "steps", number(summary.get("steps")), ""
    seconds, rate = summary.get("seconds"), summary.get("steps_per_second")
    yield "time", "-" if seconds is None else clock(seconds), f"{number(rate, 4)} steps/s" if rate else ""
    if summary.get("tokens_per_second"):
        yield "tokens/s", number(round(summary["tokens_per_second"])), "in training"
    if summary.get("peak_memory_bytes"):
        yield "peak memory", _amount("peak_memory_bytes", summary["peak_memory_bytes"]), ""
    if summary.get("parameters") is not None:
        trainable = summary.get("trainable")
        remark = "" if trainable in (None, summary["parameters"]) else f"{number(trainable)} trainable"
        yield "parameters", number(summary["parameters"]), remark


def _results(run: Run) -> Markup | None:
    """Show what the trainer itself put into the summary; `x_low` and `x_high` stand beside `x`."""
    own = {name: value for name, value in run.summary.items() if name not in _TOTALS and not is_account(value)}
    groups = {name: value for name, value in own.items() if isinstance(value, dict)}
    alike = {name: value for name, value in groups.items() if any(_alike(value, other) for other in groups.values())}
    own = {name: value for name, value in own.items() if name not in alike}
    rows = []
    for name, value in own.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in own:
            continue
        low, high = own.get(f"{name}_low"), own.get(f"{name}_high")
        rows.append(
            (name, _shown(name, value), "" if low is None or high is None else f"{number(low)} to {number(high)}")
        )
    parts = [_side_by_side(alike)] if alike else []
    if rows:
        intervals = any(row[2] for row in rows)
        head = ("result", "value", "interval") if intervals else ("result", "value")
        parts.append(table(head, [row[: len(head)] for row in rows], "What the trainer reports at its end"))
    return joined(parts) if parts else None


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one is not other and len(one.keys() & other.keys()) > 1


def _side_by_side(found: dict[str, dict[str, Any]]) -> Markup:
    """Show mappings whose keys are alike in columns; `difference`, `low` and `high` are a change and its interval."""
    names = dict.fromkeys(name for values in found.values() for name in values)
    rows = [(name, *(_cell(values.get(name)) for values in found.values())) for name in names]
    return table(("", *found), rows, "What the trainer compares at its end; of a change with its interval")


def _cell(value: Any) -> str:
    if isinstance(value, dict) and {"difference", "low", "high"} <= value.keys():
        return f"{value['difference']:+.4g} ({value['low']:+.4g} to {value['high']:+.4g})"
    return _shown("", value)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(key, inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else _amount(name, value)


def _amount(name: str, value: Any) -> str:
    """Write a result; bytes in the unit that people read."""
    of_memory = name.endswith("_bytes") and isinstance(value, int | float)
    return f"{value / 2**20:,.0f} MiB" if of_memory else number(value)


def _test(path: Path) -> Markup | None:
    """Show what `--test` measured last."""
    try:
        result = read_test_result(path)
    except RunDamagedError as error:
        return tag("p", error, class_="bad")
    if result is None:
        return None
    rows = []
    for name, value in result.metrics.items():
        low, high = result.intervals.get(name, (None, None))
        interval = "" if low is None or high is None else f"{number(low)} to {number(high)}"
        rows.append((name, "NaN" if value is None else number(value), interval, number(result.validation.get(name))))
    samples = "" if result.samples is None else f" of {counted(result.samples, 'sample')}"
    weights = "the best weights" if result.epoch is None else f"the weights of epoch {result.epoch}"
    caption = f"Means{samples}, by {weights}, tested {result.time.replace('T', ' ').replace('Z', ' UTC')}"
    changed = tag("p", f"Settings other than the run's: {', '.join(result.changed)}") if result.changed else None
    return joined([table(("metric", "test", "95 % interval", "validation"), rows, caption), changed])


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
    return joined(figures) if figures else None


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
    return table(("epoch", *columns), rows, caption.strip(), best)


def _value(column: dict[tuple[float, int], float], place: tuple[float, int]) -> str:
    return "" if place not in column else "NaN" if math.isnan(column[place]) else number(column[place])


def _settings(settings: dict[str, str], words: list[str]) -> Markup | None:
    """Show the settings, first those that were set on the command line or are not what config.ini says now."""
    keys = {name: value for name, value in settings.items() if name}
    if not keys:
        return None
    typed = {word.partition("=")[0].strip() for word in words if "=" in word}
    now = _settings_now(settings.get("", ""))
    rows, changed = [], []
    for row, (name, value) in enumerate(keys.items()):
        remarks = ["set on the command line"] if name in typed else []
        if now is not None and now.get(name) != value:
            remarks.append(f"config.ini: {now[name]}" if name in now else "no such key now")
        changed += [row] if remarks else []
        rows.append((name, value, "; ".join(remarks)))
    compared = "set on the command line, or not what the project's config.ini says today"
    if now is None:
        compared = (
            f"set on the command line; the project has no section [{settings.get('')}] to compare the others with"
        )
    few = table(("setting", "value", "remark"), [rows[row] for row in changed], f"Settings that were {compared}")
    every = table(("setting", "value", "remark"), rows, "The settings as the run resolved them", changed)
    none = tag("p", f"None was {compared}.")
    return joined([few if changed else none, details(f"All {len(rows)} settings", every)])


def _settings_now(trainer: str) -> dict[str, str] | None:
    """Return what the project's config.ini gives a trainer today, written as a run writes it; None if unknown."""
    try:
        config_class = ConfigParser.sections().get(trainer)
        text = ConfigParser.dump(ConfigParser.get(config_class)) if config_class else None
    except ConfigError:
        return None
    return None if text is None else settings_in(text)


def _environment(path: Path, environment: dict[str, Any], command: list[str]) -> Markup | None:
    facts, damaged = _read(read_facts, path)
    if damaged or not environment:
        return damaged
    git = environment.get("git") or {}
    first = {"command": shlex.join(command), "folder": environment.get("working_directory", "")}
    facts = first | facts | ({"commit": git["commit"]} if git.get("commit") else {})
    diff, untracked = str(git.get("diff") or ""), git.get("untracked") or []
    parts = [table(("fact", "value"), facts.items(), "Where and from what the run was made")]
    if diff:
        parts.append(
            details(f"Uncommitted changes ({counted(len(diff.splitlines()), 'line')})", tag("pre", diff, tabindex=0))
        )
    if untracked:
        parts.append(details(f"Untracked files ({len(untracked)})", lines(untracked)))
    return joined(parts)


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
    more = details(f"{counted(len(earlier), 'line')} before these", lines(earlier)) if earlier else None
    return joined([tag("p", "The end of train.log.", class_="faint"), lines(last), more])
