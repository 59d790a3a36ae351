"""One examination: what is known of an environment and a failure, diagnosed, with how each change is typed."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote

from doctor.case import Case
from doctor.commands.given_facts import GivenFacts, add_to_environment, add_to_failure
from doctor.commands.recalling import with_memory
from doctor.diagnosis.engine import diagnose
from doctor.diagnosis.told import Told
from doctor.environment.facts import Environment
from doctor.environment.read import EnvironmentUnreadable, read_environment
from doctor.errors import InputError
from doctor.failure.facts import Failure
from doctor.finding import Change, Diagnosis, Finding
from doctor.knowledge.base import Knowledge
from doctor.redaction import redact
from doctor.remedy.candidates import candidates
from doctor.remedy.commands import commands
from doctor.remedy.disturbance import disturbs
from doctor.report.answer import Answer, Answered, Remedy
from doctor.sources.files import environment_of, read_file
from doctor.sources.source import PYTHON
from doctor.sources.target import target_of

_INSTALLATION = re.compile(r"((?:[A-Za-z]:)?[^\s\"'(]*?)/(?:lib/python3\.\d+|Lib)/(?:site|dist)-packages/")
_SHOWN = 8  # names of a list
_SCRATCH = re.compile(r"[/\\]uv[/\\](?:cache[/\\])?(?:environments|archive|builds)-v\d+[/\\]")


@dataclass(frozen=True)
class Patient:
    """What is examined.

    Args:
        environment: what is known of it.
        folder: folder whose files may hide modules; None where none is known.
        notes: what the reader should know of how it was found.
        shown: findings of its reading alone, as sentences: a lock for another platform.
    """

    environment: Environment
    folder: str | None = None
    notes: tuple[str, ...] = ()
    other_platform: str | None = None


def find_patient(
    python: str | None,
    file: Path | None,
    failure: Failure | None,
    facts: GivenFacts,
    folder: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Patient:
    """Return the environment that is meant.

    Args:
        python: an interpreter or environment that the user names.
        file: a file that declares one.
        failure: what failed: its paths may tell where.
        facts: what the user states; it overrules.
        folder: folder that the failing program ran in, where the user names it.
        variables: environment variables that the failing program had; None for those of this process.

    Raises:
        InputError: there is no such environment, or the file can't be read.
    """
    if file is not None:
        return _declared(python, file, facts, folder)
    here = folder or os.getcwd()
    if python is not None:
        return Patient(add_to_environment(read_named(python, variables), facts), here)
    if failure is None and facts:
        return Patient(add_to_environment(Environment("what was stated"), facts), folder)
    if failure is None:
        named, notes = _default_python()
        return Patient(read_named(named, variables), here, notes)
    if (named := _named_by(failure)) and not facts.declared:
        environment = add_to_environment(read_named(named, variables), facts)
        return Patient(environment, here, (f"The text has paths of {named}, so that environment was read too.",))
    note = () if facts else (
        "Nothing in the text says that it comes from an environment here: --python PATH names one to read with it.",
    )  # fmt: skip
    return Patient(add_to_environment(Environment("the text"), facts), folder, note)


def examine(
    patient: Patient, failure: Failure | None, facts: GivenFacts, knowledge: Knowledge, memory: Path | None = None
) -> Answer:
    """Diagnose, and write how each change is typed.

    Args:
        patient: the environment.
        failure: what failed; None where somebody asks before trouble.
        facts: what the user states.
        knowledge: what is known of releases.
        memory: folder of what was proved; None for the doctor's own.
    """
    environment = patient.environment
    if failure is not None:
        failure = add_to_failure(failure, facts)
        environment = environment.with_declared(failure.stated)
    case = Case(environment, failure, patient.folder)
    diagnosis = diagnose(case, knowledge)
    if patient.other_platform:
        diagnosis = replace(diagnosis, findings=(_of_other_platform(patient.other_platform), *diagnosis.findings))

    def remedy(change: Change) -> Remedy:
        return remedy_of(change, environment, knowledge)

    answered = [
        Answered(one, tuple(map(remedy, candidates(one, environment, knowledge)))) for one in diagnosis.findings
    ]
    told = with_memory(answered, case, memory, remedy)
    notes = list(patient.notes)
    if failure is None and not environment.complete:
        known = knowledge.metadata.projects
        unjudged = sorted({one.name for one in environment.declared} - known - {PYTHON})
        if unjudged:
            more = f" and {len(unjudged) - _SHOWN} more" if len(unjudged) > _SHOWN else ""
            notes.append(
                f"Of these no metadata is here, so they were not judged: {', '.join(unjudged[:_SHOWN])}{more}."
            )
    if environment.interpreter and environment.interpreter.fault:
        notes.append(f"{environment.interpreter.fault} Its files were read all the same.")
    return Answer(
        about=_about(environment, failure),
        diagnosis=diagnosis,
        findings=told,
        failed=failure is not None,
        facts=_facts(environment, failure),
        notes=tuple(notes),
        give_next=() if told else _give_next(environment, failure, diagnosis),
        place=Told(case).place,
        case=case,
    )


def _of_other_platform(sentence: str) -> Finding:
    """Return the finding that a lock is for another platform than the target."""
    return Finding(
        "lock-of-other-platform",
        "resolve/no_wheel",
        "error",
        0.9,
        f"{sentence}.",
        (sentence.partition(" was ")[0],),
        "What is locked for one platform may have no files for another, and other versions may be right there.",
        (Change("option", "Lock it for this platform too.", commands=("uv lock", "uv export --format pylock.toml")),),
        not_this="Installing it all the same: what has no file for this platform is missing or built from source.",
        source="the lock itself",
    )


def _into_file(change: Change, file: str) -> dict[str, tuple[str, ...]]:
    """Return what to write into a file, and how to install from it then."""
    does = " (--apply does)" if file.endswith((".txt", ".in", ".py", "pyproject.toml")) else ""
    told = {"file": tuple(f"{pin}  into {file}{does}" for pin in change.requirements)}
    if file.endswith((".txt", ".in")):
        told |= {"uv": (f"uv pip install -r {quote(file)}",), "pip": (f"python -m pip install -r {quote(file)}",)}
    elif file.endswith(".py"):
        told["uv"] = (f"uv run {quote(file)}",)
    elif file.endswith((".toml", "uv.lock")):
        told["uv"] = ("uv lock", "uv sync")
    return told


def remedy_of(change: Change, environment: Environment, knowledge: Knowledge) -> Remedy:
    """Return a change with how it is typed, and with what it would break or move besides."""
    typed = commands(change, environment)
    told = {one.split()[0] for one in change.disturbs if one}
    if more := tuple(one for one in disturbs(change, environment, knowledge) if one.split()[0] not in told):
        change = replace(change, disturbs=(*change.disturbs, *more))
    if change.requirements and not environment.complete and Path(environment.source).is_file():
        return Remedy(change, {**_into_file(change, environment.source), "colab": typed.colab})
    if change.requirements or change.remove:
        return Remedy(change, {"uv": typed.uv, "pip": typed.pip, "colab": typed.colab})
    return Remedy(change, {"shell": typed.pip})


def read_named(python: str | None, variables: Mapping[str, str] | None = None) -> Environment:
    """Return the environment that a user names; this Python's where he names none.

    Raises:
        InputError: there is none.
    """
    try:
        return read_environment(python, variables=variables)
    except EnvironmentUnreadable as error:
        raise InputError(f"{'--python ' * bool(python)}{error!s}") from None


def _declared(python: str | None, file: Path, facts: GivenFacts, folder: str | None) -> Patient:
    environment = read_named(python) if python else None
    target = target_of(add_to_environment(environment or Environment(""), facts), facts.python)
    source = read_file(file, target)
    declared = environment_of(file, source, target)
    notes = list(source.notes)
    if target.assumed and declared.interpreter:
        notes.append(f"Judged for Python {declared.interpreter.version} on {declared.interpreter.sys_platform}: "
                     "--fact python=3.11 or --python PATH names another.")  # fmt: skip
    return Patient(add_to_environment(declared, facts), folder, tuple(notes), source.other_platform)


def _default_python() -> tuple[str | None, tuple[str, ...]]:
    """Return which Python is meant where none is named: this one, or the folder's where this one is uv's own."""
    if not _SCRATCH.search(sys.prefix):
        return None, ()
    for named in (".venv", "venv"):
        if Path(named, "pyvenv.cfg").is_file():
            return named, (f"Read {named} of the current folder: this Python is only uv's for the script.",)
    conda = os.environ.get("CONDA_PREFIX")
    if conda:
        return conda, (f"Read {conda}, the active conda environment: this Python is only uv's for the script.",)
    raise InputError("this Python is only uv's for the script, and the current folder has no .venv: "
                     "name the environment by --python PATH")  # fmt: skip


def _named_by(failure: Failure) -> str | None:
    """Return the environment of this machine that the paths of a failure lie in; None where they lie in none."""
    files = [frame.file for raised in failure.raised for frame in raised.frames]
    for text in (*reversed(files), failure.text):
        for found in _INSTALLATION.finditer(text):
            prefix = found[1]
            if os.path.isabs(prefix) and any(os.path.lexists(os.path.join(prefix, *one)) for one in
                                             (("bin", "python"), ("Scripts", "python.exe"))):  # fmt: skip
                return prefix
    return None


def _about(environment: Environment, failure: Failure | None) -> str:
    parts = [environment.source]
    interpreter = environment.interpreter
    if interpreter and interpreter.version:
        where = f" on {interpreter.sys_platform} {interpreter.machine}"
        parts.append(f"Python {interpreter.version}{where if environment.complete or not failure else ''}")
    if environment.complete:
        parts.append(f"{len(environment.installed)} distributions")
    elif environment.declared:
        parts.append(f"{len(environment.declared)} versions or ranges known")
    if failure is not None and environment.source != "the text":
        parts.append("and what failed")
    return redact(", ".join(parts))


def _give_next(environment: Environment, failure: Failure | None, diagnosis: Diagnosis) -> tuple[str, ...]:
    if failure is None or diagnosis.findings:
        return ()
    wanted = []
    if failure.cut or not failure.raised:
        wanted.append("the whole output from the command on, with the first `Traceback (most recent call last)`")
    if not environment.complete and not environment.declared:
        wanted.append(
            "the environment it ran in: --python PATH, or its versions: --fact NAME==VERSION, or `pip list` in the text"
        )
    if not environment.machine and not failure.platform.gpus:
        wanted.append("the hardware, where it matters: --fact gpu=T4")
    return tuple(wanted)


def _facts(environment: Environment, failure: Failure | None) -> Mapping[str, object]:
    told: dict[str, object] = {"source": environment.source, "complete": environment.complete}
    interpreter = environment.interpreter
    if interpreter:
        told["python"] = {"executable": interpreter.executable, "version": interpreter.version,
                          "sys_platform": interpreter.sys_platform, "machine": interpreter.machine,
                          "libc": interpreter.libc, "prefix": interpreter.prefix}  # fmt: skip
    if environment.machine:
        told["machine"] = {key: value for key, value in asdict(environment.machine).items() if value is not None}
    told["packages"] = {one.name: one.version for one in reversed(environment.installed)}
    told["declared"] = [
        {"name": one.name, "specifier": one.specifier, "place": one.place} for one in environment.declared
    ]
    told["variables"] = [redact(f"{name}={value}") for name, value in environment.variables.items()]
    if failure is not None:
        first = failure.first
        told["failure"] = {"kind": failure.kind, "error": first.line if first else "", "importer": failure.importer,
                           "cut": failure.cut}  # fmt: skip
    return told
