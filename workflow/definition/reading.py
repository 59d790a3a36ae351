"""workflow.yaml is read: all that is wrong with it is told at once, each with its line."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from constants.nearest import meant
from workflow.definition.expression import ExpressionError, calculated, settings_named
from workflow.definition.facts import CATEGORIES, CHECKS, Check, Definition, Estimate, Needs, Retry, Step, Watch
from workflow.definition.nodes import Node, Problems, root_of
from workflow.definition.presets import Presets, check_presets, read_presets
from workflow.definition.report_facts import read_deployment, read_sections, texts_of

SCHEMA = 1
_TOP = ("schema", "name", "title", "preset", "presets", "settings", "model", "steps", "report", "deployment")
_STEP = (
    "number", "name", "title", "category", "command", "needs", "produces", "checks", "estimate", "watch", "retry",
    "person", "advice",
)  # fmt: skip
_NEEDS = ("steps", "files", "packages", "variables", "python", "service")
_LISTS = ("files", "packages", "variables")
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
    problems = Problems(path)
    root = root_of(path, problems)
    if root is None:
        if not problems.texts:
            problems.add(0, f"it is empty; needed are {', '.join(_TOP)}")
        raise DefinitionError("\n".join(problems.sorted()))
    found, others = _definition(Node(root, problems, path.name))
    told = [text for each in (problems, *others) for text in each.sorted()]
    if told or found is None:
        raise DefinitionError("\n".join(told))
    return found


def _definition(root: Node) -> tuple[Definition | None, list[Problems]]:
    top = root.mapping(_TOP, needed=("schema", "name", "title", "preset", "presets", "steps"))
    if top is None:
        return None, []
    schema = top["schema"].whole() if "schema" in top else None
    if schema is not None and schema != SCHEMA:
        top["schema"].problem(f"is {schema}; this program reads {SCHEMA}")
    name = _named(top.get("name"))
    presets, others = read_presets(top.get("presets"), top.get("settings"))
    read = [_step(each) for each in (top["steps"].items("step") if "steps" in top else [])]
    preset = top["preset"].text() if "preset" in top else None
    known = presets.settings
    if preset is not None and known and preset not in known:
        top["preset"].problem(f"is {preset!r}, which is none of the presets {', '.join(known)}{meant(preset, known)}")
    title = top["title"].text() if "title" in top else None
    steps = tuple(sorted((step for step in read if step is not None), key=lambda step: step.number))
    is_whole = "steps" in top and bool(steps) and len(steps) == len(read)
    if is_whole:
        _check_order(steps, root.problems)
    model = (top["model"].text() or "") if "model" in top else "{model}" if "model" in presets.files() else ""
    sections, deployment = read_sections(top.get("report")), read_deployment(top.get("deployment"))
    if presets.is_whole:
        more = {"model": [model], "report": texts_of(sections, None), "deployment": texts_of((), deployment)}
        named = {key: [one for text in texts for one in settings_named(text)] for key, texts in more.items()}
        every = (*(one for each in named.values() for one in each), *_settings_of(steps))
        check_presets(presets, every, is_whole)
        for key, names in named.items():
            for lost in sorted(set(names) - set(presets.files())):
                top[key].problem(f"names the setting {lost}, which no preset has{meant(lost, presets.files())}")
        for step in steps:
            _check_settings(presets, step, root.problems)
    files = presets.files()
    return Definition(name or "", title or "", preset or "", known, steps, files, model, sections, deployment), others


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
            f"is {category!r}; there are {', '.join(CATEGORIES)}{meant(str(category), CATEGORIES)}"
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
    lists = {key: tuple(found[key].texts()) for key in _LISTS if key in found}
    service = bool(found["service"].flag()) if "service" in found else False
    python = (found["python"].text() or "") if "python" in found else ""
    if python:
        try:
            SpecifierSet(python)
        except InvalidSpecifier:
            found["python"].problem(f'is {python!r}; needed are versions, such as ">=3.11"')
    steps = tuple(one for each in (found["steps"].items("number") if "steps" in found else ())
                  if (one := each.whole()) is not None)  # fmt: skip
    return Needs(steps, python=python, service=service, **lists)


def _check(node: Node) -> Check | None:
    found = node.mapping()
    if found is None:
        return None
    if len(found) != 1:
        node.problem(f"has {len(found)} keys; a check is one: `- rows: {{file: data.jsonl, at_least: 500}}`")
        return None
    kind, inner = next(iter(found.items()))
    if kind not in CHECKS:
        node.problem(f"there is no check {kind!r}; there are {', '.join(CHECKS)}{meant(kind, CHECKS)}")
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


def _check_order(steps: Sequence[Step], problems: Problems) -> None:
    """Check what takes more than one step to see: numbers, names, circles."""
    numbers = [step.number for step in steps]
    for place, step in enumerate(steps):
        if step.number in numbers[:place]:
            problems.add(step.line, f"there are two steps {step.number}")
        if step.name in [other.name for other in steps[:place]]:
            problems.add(step.line, f"there are two steps called {step.name}")
        for other in step.needs.steps:
            if other not in numbers:
                problems.add(step.line, f"step {step.number} needs step {other}, which is not there")
            elif other >= step.number:
                which = "itself" if other == step.number else f"step {other}, which comes after it"
                problems.add(step.line, f"step {step.number} needs {which}")


def _check_settings(presets: Presets, step: Step, problems: Problems) -> None:
    """Check that each setting that a step names is there, and that its estimate can be worked out."""
    known = list(dict.fromkeys(key for own in presets.settings.values() for key in own))
    for name in _settings_of([step]):
        if name not in known:
            problems.add(step.line, f"step {step.number} names the setting {name}, which no preset has"
                         f"{meant(name, tuple(known))}")  # fmt: skip
    for preset, own in presets.settings.items():
        for key in _ESTIMATE:
            text = getattr(step.estimate, key)
            if any(name not in own or (preset, name) in presets.told for name in settings_named(text)):
                continue
            try:
                calculated(text, own)
            except ExpressionError as error:
                problems.add(step.line, f"step {step.number}, estimate, {key}, with the preset {preset}: {error}")
                break


def _settings_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the settings that steps name."""
    texts: list[str] = []
    for step in steps:
        texts += [*step.command, *step.needs.files, *step.needs.packages, *step.needs.variables, *step.produces]
        texts += [getattr(step.estimate, key) for key in _ESTIMATE]
        texts += [str(value) for check in step.checks for value in _leaves(check.arguments)]
    return tuple(dict.fromkeys(name for text in texts for name in settings_named(text)))


def _leaves(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, list) else [value]
