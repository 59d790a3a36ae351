"""The words of `workflow.py` that run a workflow: run, resume, step, status, plan."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from constants.argument_parser import BriefParser
from constants.counting import counted
from constants.end_signals import Terminated, hearing_signals
from constants.nearest import meant
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from constants.program import called
from doctor.environment.read import EnvironmentUnreadable, read_environment
from storage.errors import OutputError
from storage.files import write_atomically
from workflow.definition.expression import filled
from workflow.definition.facts import Definition, Step
from workflow.definition.reading import DefinitionError, read_definition
from workflow.estimates.plan import content_of, plan_of, text_of
from workflow.estimates.prices import PriceError, read_prices
from workflow.estimates.spending import Spending, is_hosted
from workflow.journal.digests import Digests
from workflow.journal.journal import Journal, JournalError
from workflow.journal.state import StepState, states_of
from workflow.new_project import NewProjectError, template_names, write_project
from workflow.report.content import report_of
from workflow.report.deployment import deployment_of
from workflow.report.markdown import markdown_of
from workflow.report.page import page_of
from workflow.running.environment import environment_of
from workflow.running.runner import Place, Runner, finish_by_hand
from workflow.running.screen import Screen
from workflow.running.step_process import python_of

OK, UNFINISHED, USAGE, UNREADABLE, INTERRUPTED = 0, 1, 2, 3, 130
_FILE = "workflow.yaml"


class UsageError(Exception):
    """Words that ask for what is not there; the text says what is."""


def program() -> str:
    """Return how whoever called this program would type it again, from where they are."""
    return called("workflow", Path.cwd())


def add_words(verbs: "argparse._SubParsersAction[BriefParser]") -> None:
    """Add the words to the command line."""
    new = verbs.add_parser("new", help="write a workflow that works at once", allow_abbrev=False,
                           description=f"Write a workflow into a folder: {', '.join(template_names())}.")  # fmt: skip
    new.add_argument("workflow", metavar="NAME", help=f"one of {', '.join(template_names())}")
    new.add_argument("folder", type=Path, metavar="DIR", help="folder to write, which is not there yet or empty")
    texts = {
        "run": "run the steps that are not done, or go on where it was stopped",
        "resume": "the same as run",
        "step": "run one step, although it is done; --done: a person has done it",
        "status": "show how far each step is",
        "plan": "show what would be run, and what it takes",
        "report": "write RESULTS_REPORT.md, report.html and DEPLOYMENT.md: what came out, and how it is used",
    }
    for word, text in texts.items():
        parser = verbs.add_parser(word, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        if word == "step":
            parser.add_argument("number", type=int, metavar="NUMBER", help="number of the step")
        parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR",
                            help="folder with workflow.yaml (default: the current one)")  # fmt: skip
        parser.add_argument("--preset", metavar="NAME", help="settings to use (default: those of workflow.yaml)")
        if word == "step":
            parser.add_argument("--done", action="store_true", help="a person has done it")
            parser.add_argument("--note", default="", metavar="TEXT", help="with --done: what is to be kept of it")
        else:
            parser.add_argument("--from", type=int, dest="first", metavar="N", help="only from this step on")
            parser.add_argument("--until", type=int, dest="last", metavar="N", help="only up to this step")
        if word in ("run", "resume", "step", "plan"):
            parser.add_argument("--budget", type=float, metavar="DOLLARS",
                                help="what all may cost, earlier runs too; stops before more is spent")  # fmt: skip
        if word in ("run", "resume"):
            parser.add_argument("--parallel", type=int, default=2, metavar="K", help="steps at a time (default: 2)")
            parser.add_argument("--dry-run", action="store_true", help="the same as plan")
        if word in ("status", "plan"):
            parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run_words(arguments: argparse.Namespace) -> int:
    """Do what one of the words asks for.

    Args:
        arguments: what the command line was given.

    Returns:
        The exit code: 0 where all that was chosen is done, 1 where not, 2 for mistakes, 3 for what can't be read or
        written, 130 and 143 where somebody stopped it.
    """
    try:
        if arguments.verb == "new":
            return _new(arguments.workflow, arguments.folder)
        definition = read_definition(arguments.folder / _FILE)
        preset = _preset(definition, arguments.preset)
        if arguments.preset is None:
            _note_other_preset(preset, arguments.folder)
        if arguments.verb == "step":
            return _one_step(definition, preset, arguments)
        chosen = _chosen(definition, arguments.first, arguments.last)
        if arguments.verb == "status":
            return _status(definition, preset, chosen, arguments)
        if arguments.verb == "report":
            return _report(definition, preset, arguments.folder)
        if arguments.verb == "plan" or arguments.dry_run:
            return _plan(definition, preset, chosen, arguments)
        if arguments.parallel < 1:
            raise UsageError(f"--parallel {arguments.parallel}: at least one step runs at a time")
        return _run(definition, preset, arguments, frozenset(chosen), arguments.parallel)
    except (UsageError, NewProjectError, PriceError) as error:
        return _refused(str(error), USAGE)
    except DefinitionError as error:
        missing = not (arguments.folder / _FILE).is_file()
        hint = f". Name the folder of a workflow; `{program()} new` writes one" if missing else ""
        return _refused(f"{error}{hint}", USAGE)
    except (JournalError, EnvironmentUnreadable, OutputError) as error:
        return _refused(str(error), UNREADABLE)
    except Terminated as ended:
        return _refused(f"ended by {ended}; the same command goes on", 128 + ended.number)
    except KeyboardInterrupt:
        return _refused("interrupted; the same command goes on", INTERRUPTED)


def _new(name: str, folder: Path) -> int:
    files = write_project(name, folder)
    _print(f"{folder}: {counted(len(files), 'file')}\n{chr(10).join(f'  {file}' for file in files)}\nnext: "
           f"{program()} plan {shlex.quote(str(folder))}")  # fmt: skip
    return OK


def _run(
    definition: Definition, preset: str, arguments: argparse.Namespace, chosen: frozenset[int], parallel: int,
    anew: frozenset[int] = frozenset(),
) -> int:  # fmt: skip
    folder: Path = arguments.folder
    variables = {
        "WORKFLOW_SERVE": _program("serve"),
        "WORKFLOW_PROGRAM": _program("workflow"),
        **environment_of(folder),
    }
    spending = _spending(definition, preset, arguments, variables)
    if spending.budget is not None and spending.hosted and spending.price is None and spending.model:
        raise UsageError(f"--budget can't be kept: {spending.price_text()}")
    if spending.price is not None:
        variables["WORKFLOW_PRICE"] = json.dumps(asdict(spending.price))
    python = python_of(folder)
    packages = read_environment(python, variables=variables, machine=False)
    words = [shlex.quote(str(folder))] if folder != Path() else []
    words += ["--preset", preset] if arguments.preset else []
    given = {"--from": "first", "--until": "last", "--budget": "budget"}
    bounds = "".join(f" {word} {value:g}" for word, name in given.items()
                     if (value := getattr(arguments, name, None)) is not None)  # fmt: skip
    place = Place(folder.resolve(), python, variables, packages, program(), " ".join(words), bounds)
    with hearing_signals(), Journal(folder.resolve()).held() as journal:
        screen = Screen(len(definition.steps))
        done = Runner(definition, preset, place, journal, screen, spending, chosen, parallel, anew).run()
    return OK if done else UNFINISHED


def _spending(
    definition: Definition, preset: str, arguments: argparse.Namespace, variables: Mapping[str, str]
) -> Spending:  # fmt: skip
    """Return what is known of money: prices, the budget, and what the journal says was spent."""
    if arguments.budget is not None and not arguments.budget > 0:
        raise UsageError(f"--budget {arguments.budget:g}: dollars above 0; without it there is no bound")
    prices = read_prices(arguments.folder)
    model = str(filled(definition.model, definition.presets[preset]))
    spending = Spending(prices.get(model), is_hosted(variables), arguments.budget, model, tuple(prices))
    spending.take(Journal(arguments.folder.resolve()).read())
    return spending


def _program(name: str) -> str:
    """Return the command by which a step may begin a service of this machine, or have the report written."""
    script = [str(PACKAGE_ROOT / f"{name}.py")] if IS_CHECKOUT else ["-m", "menagerie", name]
    return shlex.join([sys.executable, *script])


def _one_step(definition: Definition, preset: str, arguments: argparse.Namespace) -> int:
    step = _step(definition, arguments.number)
    if not arguments.done:
        if not step.command:
            raise UsageError(f"step {step.number} is a person's: --done when it is")
        return _run(definition, preset, arguments, frozenset({step.number}), 1, frozenset({step.number}))
    with Journal(arguments.folder.resolve()).held() as journal:
        states = {each.step.number: each for each in _states(definition, preset, arguments.folder)}
        if states[step.number].state == "blocked":
            raise UsageError(f"step {step.number} can't be done yet: it {states[step.number].reason}")
        finish_by_hand(definition, preset, step, journal, arguments.folder.resolve(), arguments.note)
    _print(f"step {step.number}: done")
    return OK


def _status(definition: Definition, preset: str, chosen: Sequence[int], arguments: argparse.Namespace) -> int:
    states = [each for each in _states(definition, preset, arguments.folder) if each.step.number in chosen]
    done = all(each.state == "done" for each in states)
    if arguments.json:
        _print(json.dumps({"schema_version": 1, "name": definition.name, "preset": preset,
                           "steps": [_content(each) for each in states]}, indent=1))  # fmt: skip
        return OK if done else UNFINISHED
    width = max(len(each.step.title) for each in states)
    lines = [f"{definition.title} (preset {preset})"]
    category = ""
    for each in states:
        if each.step.category != category:
            category = each.step.category
            lines.append(category)
        facts = each.last.facts if each.last is not None and each.state == "done" else {}
        told = each.reason or "; ".join(map(str, _list(facts.get("checks"))))
        lines.append(f"  {each.step.number:2}  {each.step.title:<{width}}  {each.state:<8}  {told}".rstrip())
    finished = sum(each.state == "done" for each in states)
    lines.append(f"{finished} of {counted(len(states), 'step')} done")
    _print("\n".join(lines))
    return OK if done else UNFINISHED


def _report(definition: Definition, preset: str, folder: Path) -> int:
    states = _states(definition, preset, folder)
    report = report_of(definition, preset, states, Journal(folder.resolve()).read(), folder)
    files = {"RESULTS_REPORT.md": markdown_of(report), "report.html": page_of(report)}
    if definition.deployment is not None:
        settings = definition.presets[preset]
        text = deployment_of(definition.deployment, settings, folder)
        if text is None:
            adapter = filled(definition.deployment.adapter, settings)
            _print(f"no DEPLOYMENT.md: {adapter} has no adapter that can be used")
        else:
            files["DEPLOYMENT.md"] = text
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
        _print(f"wrote {folder / name}")
    return OK if all(each.state == "done" for each in states) else UNFINISHED


def _plan(definition: Definition, preset: str, chosen: Sequence[int], arguments: argparse.Namespace) -> int:
    states = [each for each in _states(definition, preset, arguments.folder)
              if each.step.number in chosen and each.state != "done"]  # fmt: skip
    spending = _spending(definition, preset, arguments, environment_of(arguments.folder))
    planned = plan_of(definition, preset, states, spending, arguments.folder)
    _print(json.dumps(content_of(planned), indent=1) if getattr(arguments, "json", False) else text_of(planned))
    return OK


def _states(definition: Definition, preset: str, folder: Path) -> tuple[StepState, ...]:
    journal = Journal(folder.resolve())
    return states_of(definition, preset, journal.read(), Digests(folder.resolve()), journal.is_held())


def _content(state: StepState) -> dict[str, object]:
    return {"number": state.step.number, "name": state.step.name, "title": state.step.title, "state": state.state,
            "reason": state.reason, "facts": dict(state.last.facts) if state.last is not None else {}}  # fmt: skip


def _preset(definition: Definition, given: str | None) -> str:
    if given is None:
        return definition.preset
    if given not in definition.presets:
        hint = meant(given, definition.presets) or f"; there are {', '.join(definition.presets)}"
        raise UsageError(f"there is no preset {given}{hint}")
    return given


def _note_other_preset(preset: str, folder: Path) -> None:
    """Say where the folder was run with another preset than is meant now by saying nothing."""
    before = [event.facts["preset"] for event in Journal(folder.resolve()).read() if "preset" in event.facts]
    if before and before[-1] != preset:
        sys.stderr.write(
            f"note: the last run was with --preset {before[-1]}; this is {preset}, as workflow.yaml has it\n"
        )


def _chosen(definition: Definition, first: int | None, last: int | None) -> list[int]:
    for number in (first, last):
        if number is not None:
            _step(definition, number)
    chosen = [step.number for step in definition.steps
              if (first is None or step.number >= first) and (last is None or step.number <= last)]  # fmt: skip
    if not chosen:
        raise UsageError(f"no step is from {first} until {last}")
    return chosen


def _step(definition: Definition, number: int) -> Step:
    try:
        return definition.step(number)
    except KeyError:
        numbers = [step.number for step in definition.steps]
        raise UsageError(f"there is no step {number}; there are {min(numbers)} to {max(numbers)}") from None


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _refused(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
