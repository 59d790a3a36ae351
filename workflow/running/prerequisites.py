"""What a step needs before it begins, beside other steps: files, variables, its key, packages, the service."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from doctor.environment.facts import Environment
from workflow.definition.expression import filled
from workflow.definition.facts import Step
from workflow.estimates.spending import KEY
from workflow.failures.advice import Advice
from workflow.failures.environment_fault import install_commands
from workflow.failures.kinds import kind_named
from workflow.journal.state import command_of
from workflow.running.service_reach import fault_of_value, unreachable
from workflow.running.step_run import packages_of

_CONSOLE = "https://tinker-console.thinkingmachines.ai"


def lacking(
    step: Step, settings: Mapping[str, object], folder: Path, variables: Mapping[str, str], packages: Environment,
    inputs: Mapping[str, str | None],
) -> list[Advice]:  # fmt: skip
    """Return what a step lacks, each with what to do.

    Args:
        step: the step.
        settings: settings of the preset.
        folder: the project's folder.
        variables: environment variables that it would see.
        packages: what is installed where it would run.
        inputs: digests of the files that it needs; None for one that isn't there.
    """
    return [
        *_program(step, settings, folder), *_files(step, inputs), *_environment(step, settings, packages),
        *_variables(step, settings, folder, variables), *_service(step, variables),
    ]  # fmt: skip


def _program(step: Step, settings: Mapping[str, object], folder: Path) -> list[Advice]:
    words = command_of(step, settings)
    scripts = [word for word in words[1:2] if word.endswith(".py") and not (folder / word).is_file()]
    told = [Advice("file", f"there is no script {folder / word}", "", "The step's command names it.",
                   ("Correct the name in workflow.yaml, or put the script there.",)) for word in scripts]  # fmt: skip
    if words and words[0] != "python" and shutil.which(words[0]) is None and not (folder / words[0]).exists():
        told.append(Advice("file", f"there is no program {words[0]}", "", "The step's command begins with it.",
                           ("Install it, or correct the command in workflow.yaml.",)))  # fmt: skip
    return told


def _files(step: Step, inputs: Mapping[str, str | None]) -> list[Advice]:
    absent = [path for path, digest in inputs.items() if digest is None]
    if not absent:
        return []
    return [Advice("file", f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not there", "",
                   "The step reads what a step before it makes, or what you put there.",
                   ("Put it there, or run the steps before again.",))]  # fmt: skip


def _environment(step: Step, settings: Mapping[str, object], packages: Environment) -> list[Advice]:
    told = []
    version = packages.interpreter.version if packages.interpreter else ""
    if step.needs.python and version and not SpecifierSet(step.needs.python).contains(version, prereleases=True):
        told.append(Advice("module", f"Python {step.needs.python} is needed, {version} is what runs the steps", "",
                           "The steps run with the Python of the project's .venv, else with that of this program.",
                           ("Make a .venv with such a Python in the project, and install requirements.txt into it.",),
                           (f"uv venv --python '{step.needs.python}' .venv",)))  # fmt: skip
    wanted, whys = [], []
    for text in packages_of(step, settings):
        try:
            need = Requirement(text)
        except InvalidRequirement as error:
            told.append(Advice("module", f"{text!r} is no requirement: {str(error).splitlines()[0]}", "",
                               "needs.packages of workflow.yaml has requirements, as pip reads them.",
                               ("Correct it in workflow.yaml.",)))  # fmt: skip
            continue
        here = packages.version(need.name)
        if here is None or not need.specifier.contains(here, prereleases=True):
            wanted.append(text)
            whys.append(f"{text} is {'not installed' if here is None else f'needed, {here} is installed'}")
    if wanted:
        commands, disturbs = install_commands(wanted, packages)
        told.append(Advice("module", "; ".join(whys), "", f"The steps run with {packages.source}.",
                           ("Install what is lacking.", *(f"Note: {text}" for text in disturbs)),
                           commands))  # fmt: skip
    return told


def _variables(
    step: Step, settings: Mapping[str, object], folder: Path, variables: Mapping[str, str]
) -> list[Advice]:  # fmt: skip
    told = []
    needed = variables_of(step, settings)
    for name in needed:
        if not variables.get(name):
            way = f"Make a key in the console, {_CONSOLE}, and write it into .env, and nowhere else."
            told.append(Advice("key", f"{name} is not set", "",
                               "The process has no such variable, and .env no such line.",
                               (way if name == KEY else "Write it into .env.",),
                               (f"echo '{name}=...' >> {shlex.quote(str(folder / '.env'))}",)))  # fmt: skip
    checked = [*needed, *([KEY] if step.needs.service else [])]
    for name in dict.fromkeys(checked):
        secret = any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET"))
        if secret and (fault := fault_of_value(name, variables.get(name) or "-")) and variables.get(name):
            told.append(Advice("key", f"{name} is not well-formed: {fault}", "",
                               "A service would refuse it, after the step has begun.",
                               (f"Copy it anew from the console{f', {_CONSOLE},' if name == KEY else ''} into .env: "
                                f"{name}=...",)))  # fmt: skip
    return told


def variables_of(step: Step, settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the variables that a step needs with these settings; a setting may be a list of them, or an empty one.

    Args:
        step: the step.
        settings: settings of the preset.
    """
    found = [filled(one, settings) for one in step.needs.variables]
    return tuple(str(name) for one in found for name in (one if isinstance(one, list) else [one]))


def _service(step: Step, variables: Mapping[str, str]) -> list[Advice]:
    if not step.needs.service or not (why := unreachable(variables)):
        return []
    usual = kind_named("connection")
    return [Advice("connection", why, "", usual.cause, usual.recovery, passes=True)]
