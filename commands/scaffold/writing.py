"""Writes a new trainer from a model: `python train.py --new NAME --model MODULE:CLASS --batch KIND --task TASK`."""

import ast
import contextlib
import keyword
import os
import re
from dataclasses import MISSING
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from commands.new_project import CONFTEST
from commands.scaffold.constructor import Field, build_model, constructor_fields
from commands.scaffold.model import load_model_class
from commands.scaffold.plan import Plan
from commands.scaffold.probe import Fit, find_fit, forward_names, is_lazy, optional_names, shape_text, shapes_by_input
from commands.scaffold.sizes import trace_sizes
from commands.scaffold.templates import config_text, in_package, in_project, section_text, test_text, trainer_text
from config import ConfigParser
from config.ini_reader import parse_ini
from constants import CONFIG_PATH, PACKAGE_ROOT, PROJECT_ROOT
from constants.program import typed
from storage.errors import OutputError
from storage.files import write_atomically
from train import TRAINER_REGISTRY
from train.errors import ScaffoldError

_LONGEST = 60  # characters of a trainer's name


def scaffold(name: str, model: str, batch: str, task: str, shape: str | None = None) -> str:
    """Write a trainer, its config, its section of config.ini and its test: all of them, or nothing.

    Args:
        name: class name of the trainer, CamelCase; `Trainer` is added where it is missing.
        model: address of the model's class, `package.module:ClassName`.
        batch: form of a batch: tensor, dict or dataclass.
        task: kind of task: autoencoder, ranking, transformer or classification.
        shape: shape of a sample, such as `16` or `3x32x32`; None finds it out.

    Returns:
        What was written, and the next commands.

    Raises:
        ScaffoldError: it can't be made; nothing was written.
        OutputError: a file can't be written; what was written before is taken back.
    """
    trainer, stem = _names(name)
    places = [
        PROJECT_ROOT / "config" / f"{stem}_config.py",
        PROJECT_ROOT / "train" / f"{stem}.py",
        PROJECT_ROOT / "tests" / "train" / f"test_{stem}.py",
    ]
    _refuse_taken(trainer, places)
    fixture = PROJECT_ROOT / "tests" / "conftest.py"
    plan = _plan(trainer, stem, model, batch, task, shape)
    texts = [config_text(plan), trainer_text(plan), test_text(plan)]
    for text, place in zip(texts, places, strict=True):
        ast.parse(text, filename=str(place))  # our own bug, if it fails; better now than with half of the files there
    files = dict(zip(places, texts, strict=True))
    if PROJECT_ROOT != PACKAGE_ROOT and not fixture.exists():  # a project that `menagerie init` has not made
        files[fixture] = CONFTEST.read_text(encoding="utf-8")
    _write_all(files, section_text(plan))
    return _report(plan, list(files))


def _names(name: str) -> tuple[str, str]:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise ScaffoldError(f"--new {name}: must be a class name in CamelCase, such as FeatureFusionTrainer.")
    trainer = name if name.endswith("Trainer") else f"{name}Trainer"
    if len(trainer) > _LONGEST:
        raise ScaffoldError(f"--new {name}: {trainer} has {len(trainer)} characters; at most {_LONGEST} fit its lines.")
    if trainer in ("Trainer", "BaseTrainer"):
        raise ScaffoldError(f"--new {name}: must say what is trained, such as FeatureFusionTrainer.")
    return trainer, re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", trainer).lower()


def _refuse_taken(trainer: str, places: list[Path]) -> None:
    known = TRAINER_REGISTRY.entry(trainer) if trainer in TRAINER_REGISTRY else None
    if known is not None:
        raise ScaffoldError(
            f"--new {trainer}: there is {known.name} in {_shown(known.file)}:{known.line}; take another name."
        )
    taken = [f"the file {_shown(place)}" for place in places if place.exists() or place.is_symlink()]
    ini = parse_ini(CONFIG_PATH.read_bytes()) if CONFIG_PATH.exists() else None
    if ini is not None and trainer in ini.sections:
        taken.append(f"the section [{trainer}] at {_shown(CONFIG_PATH)}:{ini.sections[trainer]}")
    elif trainer in ConfigParser.sections():
        taken.append(f"the class {trainer}Config in {ConfigParser.sections()[trainer].__module__}")
    if taken:
        raise ScaffoldError(
            f"--new {trainer} would overwrite {', '.join(taken)}. Remove it or take another name; nothing was written."
        )


def _plan(trainer: str, stem: str, target: str, batch: str, task: str, shape: str | None) -> Plan:
    model_class = load_model_class(target)
    names = forward_names(model_class, batch)
    more = [] if batch == "tensor" else optional_names(model_class)
    if batch != "tensor" and any(keyword.iskeyword(name) for name, _ in [*names, *more]):
        raise ScaffoldError(f"{model_class.__name__}.forward has a parameter whose name is a word of Python.")
    try:
        fields, fit = _settings_and_fit(model_class, names, task, shape)
    except ScaffoldError:
        if not more:
            raise
        found = None
        with contextlib.suppress(ScaffoldError):  # a model may need, as it is set up, what it could do without
            found = _settings_and_fit(model_class, [*names, *more], task, shape)
        if found is None:
            raise  # what was said of the inputs that it must have
        fields, fit = found
    if batch == "tensor":
        _refuse_without_room(task, fit)
    module, attribute = target.split(":")
    return Plan(
        trainer, stem, module, attribute, batch, task, fields, fit,
        sizes=trace_sizes(lambda changes: build_model(model_class, fields, changes), fields, fit, task),
        lazy=is_lazy(build_model(model_class, fields)),
        path_entry=in_project(module) and not in_package(module),
    )  # fmt: skip


def _settings_and_fit(
    model_class: type[nn.Module], names: list[tuple[str, bool]], task: str, shape: str | None
) -> tuple[list[Field], Fit]:
    given = shapes_by_input(names, shape)
    fields = constructor_fields(model_class, given)
    return fields, find_fit(lambda: build_model(model_class, fields), names, task, fields, given)


def _refuse_without_room(task: str, fit: Fit) -> None:
    """Refuse a batch of one tensor where what is learnt from can't stand behind the input."""
    shape, floats = fit.inputs[0].shape, fit.inputs[0].tokens is None
    room = {"classification": len(shape) == 1, "ranking": floats and (len(shape) == 1 or shape[:-1] == fit.output)}
    if not room.get(task, True):
        raise ScaffoldError(
            f"--batch tensor has no place for what --task {task} learns from beside a sample {shape_text(shape)}: use "
            "--batch dict or --batch dataclass."
        )


def _write_all(texts: dict[Path, str], section: str) -> None:
    """Write new files and the section, or nothing."""
    ini = CONFIG_PATH.resolve()
    written, folders = [], []
    try:
        for place, text in texts.items():
            folders += [folder for folder in (place.parent, *place.parent.parents) if not folder.exists()]
            written.append(place)
            write_atomically(place, text.encode())
        old = ini.read_bytes() if ini.exists() else b""
        newline = b"\r\n" if b"\r\n" in old else b"\n"
        gap = b"" if not old else newline if old.endswith(b"\n") else newline * 2
        place = ini
        write_atomically(ini, old + gap + section.encode().replace(b"\n", newline))  # last: it is all or nothing itself
    except (OutputError, OSError, KeyboardInterrupt) as error:
        for each in written:
            with contextlib.suppress(OSError):
                each.unlink()
        for folder in folders:
            with contextlib.suppress(OSError):  # not made yet
                folder.rmdir()
        if isinstance(error, KeyboardInterrupt):
            raise
        cause = error.__cause__ or error  # OutputError's own advice is for runs
        reason = getattr(cause, "strerror", None) or str(cause)
        raise OutputError(
            f"cannot write {_shown(place)}: {reason}. Nothing of the trainer was kept. Make room, or give this user "
            "the right to write there."
        ) from error


def _report(plan: Plan, places: list[Path]) -> str:
    inputs = ", ".join(f"{each.name} {shape_text(each.shape)}" for each in plan.fit.inputs)
    short = plan.trainer.removesuffix("Trainer")
    guessed = [f"{field.name} = {field.value!r}" for field in plan.fields if field.default is MISSING]
    config, trainer, test, *fixture = map(_shown, places)
    lines = [f"{plan.model} takes {inputs} and returns {shape_text(plan.fit.output)}", "wrote"]
    lines += [f"  {place}" for place in (config, trainer, test, *fixture)]
    lines += [f"  {_shown(CONFIG_PATH)} [{plan.trainer}]"]
    lines += [f"    a guess, as the model has no default: {', '.join(guessed)}"] if guessed else []
    lines += ["next", *_next_commands(short, test), f"then put your own data into _data() in {trainer}"]
    return "\n".join(lines) + "\n"


def _next_commands(short: str, test: str) -> list[str]:
    """What can be typed as it stands: after `make new`, with make, which sets up what each needs."""
    if os.environ.get("MENAGERIE_MAKE"):
        return [
            f"  make train TRAINER={short} ARGS=--dry-run",
            f"  make train TRAINER={short}",
            f"  make test ARGS={test}",
        ]
    train, python = (typed(name, Path.cwd()) for name in ("train", "python"))
    lines = [f"  {train} {short} --dry-run", f"  {train} {short}"]
    lines += [] if find_spec("pytest") else [f"  {python} -m pip install pytest"]
    return [*lines, f"  {python} -m pytest {test}"]


def _shown(path: Path | None) -> str:
    return str(path).removeprefix(f"{PROJECT_ROOT}/")
