"""workflow.yaml is read: all that is wrong with it is told at once, each with its line."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from constants.nearest import nearest
from workflow.definition.expression import ExpressionError, calculated, settings_named
from workflow.definition.facts import CATEGORIES, CHECKS, Check, Definition, Estimate, Needs, Retry, Step, Watch
from workflow.definition.nodes import Node, Problems

SCHEMA = 1
_TOP = ("schema", "name", "title", "preset", "presets", "steps")
_STEP = (
    "number", "name", "title", "category", "command", "needs", "produces", "checks", "estimate", "watch", "retry",
    "person", "advice",
)  # fmt: skip
_NEEDS = ("steps", "files", "packages", "variables")
_ESTIMATE = ("minutes", "tokens_in", "tokens_out", "tokens_trained", "megabytes")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class DefinitionError(Exception):
    """A workflow.yaml that can't be used; the text has a line for each mistake."""


def read_definition(path: Path) -> Definition:
    """Read a workflow.

    Args:
        path: its workflow.yaml.

    Raises:
        DefinitionError: it can't be read, or says what makes no workflow.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DefinitionError(f"{path}: no text in UTF-8") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DefinitionError(f"{path}:{line}: no YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DefinitionError(f"{path}: no YAML: {error}") from None
    problems = Problems(path)
    if root is None:
        raise DefinitionError(f"{path}: it is empty; needed are {', '.join(_TOP)}")
    found = _definition(Node(root, problems, path.name))
    if not problems.texts and found is not None:
        _check_whole(found, problems)
    if problems.texts or found is None:
        raise DefinitionError("\n".join(problems.sorted()))
    return found


def _definition(root: Node) -> Definition | None:
    top = root.mapping(_TOP, needed=("schema", "name", "title", "preset", "presets", "steps"))
    if top is None:
        return None
    schema = top["schema"].whole() if "schema" in top else None
    if schema is not None and schema != SCHEMA:
        top["schema"].problem(f"is {schema}; this program reads {SCHEMA}")
    name = _named(top.get("name"))
    presets = _presets(top.get("presets"))
    steps = [_step(each) for each in (top["steps"].items("step") if "steps" in top else [])]
    preset = top["preset"].text() if "preset" in top else None
    if preset is not None and presets and preset not in presets:
        top["preset"].problem(
            f"is {preset!r}, which is none of the presets {', '.join(presets)}{_meant(preset, presets)}"
        )
    title = top["title"].text() if "title" in top else None
    if None in (name, title, preset) or any(step is None for step in steps):
        return None
    ordered = sorted((step for step in steps if step is not None), key=lambda step: step.number)
    return Definition(name or "", title or "", preset or "", presets, tuple(ordered))


def _presets(node: Node | None) -> dict[str, Mapping[str, object]]:
    """Read presets: each has the same settings, so that a step can name them whichever holds."""
    presets: dict[str, Mapping[str, object]] = {}
    nodes = (node.mapping() or {}) if node is not None else {}
    for name, each in nodes.items():
        own = each.mapping()
        if own is not None:
            presets[name] = {key: value.plain() for key, value in own.items()}
    every = dict.fromkeys(key for settings in presets.values() for key in settings)
    for name, settings in presets.items():
        if lacks := [key for key in every if key not in settings]:
            nodes[name].problem(f"lacks {', '.join(lacks)}, which other presets have")
    if node is not None and not presets:
        node.problem("names no preset; one is needed, such as `cpu: {}`")
    return presets


def _step(node: Node) -> Step | None:
    found = node.mapping(_STEP, needed=("number", "name", "title", "category"))
    if found is None:
        return None

    def read(key: str, how: Callable[[Node], object], default: object) -> object:
        if key not in found:
            return default
        value = how(found[key])
        return default if value is None else value

    number, name = read("number", Node.whole, None), _named(found.get("name"))
    title, category = read("title", Node.text, None), read("category", Node.text, None)
    if isinstance(number, int) and number < 1:
        found["number"].problem(f"is {number}; steps are counted from 1")
    if category is not None and category not in CATEGORIES:
        found["category"].problem(
            f"is {category!r}; there are {', '.join(CATEGORIES)}{_meant(str(category), CATEGORIES)}"
        )
    command = _command(found.get("command"))
    person = bool(read("person", Node.flag, False))
    if not command and not person and "command" not in found:
        node.problem("has neither a command nor `person: true`: nothing says what is to be done")
    step = Step(
        number=number if isinstance(number, int) else 0, name=name or "", title=str(title or ""),
        category=str(category or ""), command=command, needs=_needs(found.get("needs")),
        produces=tuple(found["produces"].texts()) if "produces" in found else (),
        checks=tuple(check for each in (found["checks"].items("check") if "checks" in found else [])
                     if (check := _check(each)) is not None),
        estimate=_estimate(found.get("estimate")), watch=_watch(found.get("watch")), retry=_retry(found.get("retry")),
        person=person, advice=str(read("advice", Node.text, "")), line=node.line,
    )  # fmt: skip
    return step if step.number and step.name and step.title and step.category else None


def _command(node: Node | None) -> tuple[str, ...]:
    text = node.text() if node is not None else None
    if node is None or text is None:
        return ()
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        node.problem(f"is no command: {str(error).lower()}")
        return ()
    if not words:
        node.problem("is empty; leave it out where a person does the step")
    return words


def _needs(node: Node | None) -> Needs:
    found = node.mapping(_NEEDS) if node is not None else None
    if not found:
        return Needs()
    lists = {key: tuple(found[key].texts()) for key in _NEEDS[1:] if key in found}
    steps = tuple(one for each in (found["steps"].items("number") if "steps" in found else ())
                  if (one := each.whole()) is not None)  # fmt: skip
    return Needs(steps, **lists)


def _check(node: Node) -> Check | None:
    found = node.mapping()
    if found is None:
        return None
    if len(found) != 1:
        node.problem(f"has {len(found)} keys; a check is one: `- rows: {{file: data.jsonl, at_least: 500}}`")
        return None
    kind, inner = next(iter(found.items()))
    if kind not in CHECKS:
        node.problem(f"there is no check {kind!r}; there are {', '.join(CHECKS)}{_meant(kind, CHECKS)}")
        return None
    needed, optional = CHECKS[kind]
    arguments = inner.mapping((*needed, *optional), needed=needed)
    if arguments is None:
        return None
    return Check(kind, {key: value.plain() for key, value in arguments.items()}, node.line)


def _estimate(node: Node | None) -> Estimate:
    found = node.mapping(_ESTIMATE) if node is not None else None
    return Estimate(**{key: str(value.plain()) for key, value in (found or {}).items()})


def _watch(node: Node | None) -> Watch:
    found = node.mapping(("stall", "loss", "explosion")) if node is not None else None
    usual = Watch()
    if not found:
        return usual
    numbers = {key: found[key].number(above=1) for key in ("stall", "explosion") if key in found}
    loss = found["loss"].flag() if "loss" in found else None
    return Watch(numbers.get("stall") or usual.stall, bool(loss), numbers.get("explosion") or usual.explosion)


def _retry(node: Node | None) -> Retry:
    found = node.mapping(("attempts", "minutes")) if node is not None else None
    usual = Retry()
    if not found:
        return usual
    attempts = found["attempts"].whole() if "attempts" in found else None
    minutes = found["minutes"].number(above=0) if "minutes" in found else None
    return Retry(
        usual.attempts if attempts is None else max(attempts, 0), usual.minutes if minutes is None else minutes
    )


def _named(node: Node | None) -> str | None:
    text = node.text() if node is not None else None
    if node is not None and text is not None and not _NAME.fullmatch(text):
        node.problem(f"is {text!r}; a name is small letters, digits and _, and begins with a letter")
        return None
    return text


def _meant(given: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = nearest(given, list(known))
    return f"; did you mean {near}?" if near else ""


def _check_whole(found: Definition, problems: Problems) -> None:
    """Check what takes more than one step to see: numbers, names, circles, settings."""
    numbers = [step.number for step in found.steps]
    for place, step in enumerate(found.steps):
        if step.number in numbers[:place]:
            problems.add(step.line, f"there are two steps {step.number}")
        if step.name in [other.name for other in found.steps[:place]]:
            problems.add(step.line, f"there are two steps called {step.name}")
        for other in step.needs.steps:
            if other not in numbers:
                problems.add(step.line, f"step {step.number} needs step {other}, which is not there")
            elif other >= step.number:
                which = "itself" if other == step.number else f"step {other}, which comes after it"
                problems.add(step.line, f"step {step.number} needs {which}")
        _check_settings(found, step, problems)


def _check_settings(found: Definition, step: Step, problems: Problems) -> None:
    settings = found.presets[found.preset]
    texts = [*step.command, *step.needs.files, *step.needs.packages, *step.produces]
    texts += [str(value) for check in step.checks for value in _leaves(check.arguments)]
    for name in dict.fromkeys(name for text in texts for name in settings_named(text)):
        if name not in settings:
            problems.add(step.line, f"step {step.number} names the setting {name}, which no preset has"
                         f"{_meant(name, settings)}")  # fmt: skip
    for preset, own in found.presets.items():
        for key in _ESTIMATE:
            try:
                calculated(getattr(step.estimate, key), own)
            except ExpressionError as error:
                problems.add(step.line, f"step {step.number}, estimate, {key}, with the preset {preset}: {error}")
                break


def _leaves(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, list) else [value]
