"""What a step needs before it begins, beside other steps and files: variables, packages, a program."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from doctor.environment.facts import Environment
from workflow.definition.facts import Step
from workflow.journal.state import command_of
from workflow.running.step_run import packages_of


def lacking(
    step: Step, settings: Mapping[str, object], folder: Path, variables: Mapping[str, str], packages: Environment,
    python: str,
) -> list[str]:  # fmt: skip
    """Return what a step lacks, a sentence each with what to do.

    Args:
        step: the step.
        settings: settings of the preset.
        folder: the project's folder.
        variables: environment variables that it would see.
        packages: what is installed where it would run.
        python: the interpreter that it would run with.
    """
    told = [
        f"{name} is not set. Write it into {folder / '.env'}: {name}=..." for name in step.needs.variables
        if not variables.get(name)
    ]  # fmt: skip
    wanted = []
    for text in packages_of(step, settings):
        try:
            need = Requirement(text)
        except InvalidRequirement as error:
            told.append(f"{text!r} is no requirement: {str(error).splitlines()[0]}")
            continue
        here = packages.version(need.name)
        if here is None or not need.specifier.contains(here, prereleases=True):
            wanted.append((text, "is not installed" if here is None else f"is needed, {here} is installed"))
    for text, why in wanted:
        told.append(f"{text} {why}")
    if wanted:
        told[-1] += f". Install: {python} -m pip install {' '.join(repr(text) for text, _ in wanted)}"
    words = command_of(step, settings)
    if words and words[0] != "python" and shutil.which(words[0]) is None and not (folder / words[0]).exists():
        told.append(f"there is no program {words[0]}")
    scripts = [word for word in words[1:2] if word.endswith(".py") and not (folder / word).is_file()]
    told += [f"there is no script {folder / word}" for word in scripts]
    return told
