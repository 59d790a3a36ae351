"""What is not as it was when a run began, told before the run goes on."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from beautilog import logger

from config import ConfigParser
from constants import PACKAGE_ROOT, PROJECT_ROOT
from constants.counting import counted
from storage.errors import ResumeError
from train.checkpointing.provenance import loaders_of, provenance
from train.context import RunContext

# What decides which samples make a step. Half a run of one and half of another is neither.
_STRUCTURAL = ("seed", "batch_size", "accumulation_steps")
# What lives on in the states of optimizer and scheduler.
KEPT = frozenset(("learning_rate", "weight_decay", "lr_decay_factor", "lr_patience"))
_SETTING = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)


def check_resume(run: RunContext) -> None:
    """Compare settings, packages, code and data with those that a run began with.

    Each difference is logged. What can't be gone on with is refused.

    Args:
        run: run that is about to go on in its folder.

    Raises:
        ResumeError: the order or number of samples in a step has changed, or a dataset's length.
    """
    folder = run.folder.path
    _tell_passed_over(run)
    refused = _compare_settings(_read(folder / "config.ini"), ConfigParser.dump(run.config))
    text = _read(folder / "environment.json")
    try:
        known = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        logger.warning(f"{folder / 'environment.json'} is damaged, so nothing can be compared with it: {error}")
        known = {}
    if known:
        run.provenance = provenance(run.device, loaders_of(run))
        refused += _compare_provenance(known, run.provenance)
    if refused:
        raise ResumeError(
            f"run {run.folder.id} can't be gone on with:\n  " + "\n  ".join(refused) + "\n"
            f"Leave it as the run has it ({folder / 'config.ini'} holds its settings, which go on by themselves), or "
            "start a new run without --resume."
        )


def _tell_passed_over(run: RunContext) -> None:
    """Say where config.ini has other values than the run, which are not used, and how to use them."""
    passed = ConfigParser.passed_over(type(run.config))
    if not passed:
        return
    told = ", ".join(f"{key} = {other} (the run: {value})" for key, (value, other) in passed.items())
    words = " ".join(shlex.quote(f"{key}={other}") for key, (_, other) in list(passed.items())[:1])
    logger.info(
        f"the run's own settings go on; {ConfigParser.path().name} has others, which are not used: {told}. To use one, "
        f"name it on the command line: {words}"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
    except UnicodeDecodeError as error:
        logger.warning(f"{path} is damaged, so nothing can be compared with it: {error}")
        return ""


def _compare_settings(before: str, now: str) -> list[str]:
    old, new = dict(_SETTING.findall(before)), dict(_SETTING.findall(now))
    changed = [name for name in new if name in old and old[name] != new[name]]
    free = [name for name in changed if name not in (*_STRUCTURAL, *KEPT)]
    if free:
        logger.info("settings that differ from the run's: " + ", ".join(f"{n} {old[n]} -> {new[n]}" for n in free))
    for name in changed:
        if name in KEPT:
            logger.warning(
                f"{name} = {new[name]} has no effect: the states of optimizer and scheduler go on from {old[name]}"
            )
    return [
        f"{n} is {new[n]}, the run has {old[n]}: its steps are of other samples" for n in changed if n in _STRUCTURAL
    ]


def _compare_provenance(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    packages = {"python": (old.get("python"), new["python"])}
    packages |= {name: (version, new["packages"].get(name)) for name, version in old.get("packages", {}).items()}
    other = [f"{name} {before} -> {now}" for name, (before, now) in packages.items() if before != now]
    if other:
        logger.warning("packages differ from the run's, and with them perhaps the last bits: " + ", ".join(other))
    git, git_now = old.get("git") or {}, new["git"] or {}
    if git.get("commit") != git_now.get("commit"):
        logger.warning(f"the code is of another commit: {_short(git)} -> {_short(git_now)}")
    elif git.get("diff") != git_now.get("diff"):
        logger.warning("the code has other uncommitted changes than when the run began")
    program, program_now = old.get("menagerie") or {}, new["menagerie"]
    if program and program["version"] != program_now["version"]:
        logger.warning(f"Menagerie has another version: {program['version']} -> {program_now['version']}")
    elif program and PROJECT_ROOT != PACKAGE_ROOT and program["commit"] != program_now["commit"]:
        logger.warning(f"Menagerie is of another commit: {program['commit']} -> {program_now['commit']}")
    device, device_now = old.get("device", {}), new["device"]
    for name in ("type", "name", "threads"):
        if device.get(name) != device_now[name]:
            logger.warning(f"the device's {name} is another one: {device.get(name)} -> {device_now[name]}")
    return _compare_data(old.get("data", {}), new["data"])


def _short(git: dict[str, Any]) -> str:
    return git.get("commit", "none")[:10]


def _compare_data(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    refused = []
    for name, known in old.items():
        now = new.get(name)
        if known == now or not known or not now:
            continue
        if known["length"] != now["length"]:
            refused.append(f"the {name} data has {counted(now['length'], 'sample')}, the run's had {known['length']}")
        else:
            logger.warning(f"the {name} data is not what it was: some of its samples differ")
    return refused
