"""Facts that the user states: `--fact torch==2.6.0 --fact gpu=T4 --fact python=3.10 --fact place=colab`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from constants.nearest import nearest
from doctor.environment.facts import Declared, Environment, Gpu, Interpreter, Machine
from doctor.errors import InputError
from doctor.failure.facts import Failure

PLACES = ("colab", "kaggle", "notebook", "docker", "kubernetes", "wsl", "conda", "slurm", "local")
_SYSTEMS = {
    "linux": "linux", "darwin": "darwin", "mac": "darwin", "macos": "darwin", "win32": "win32", "windows": "win32",
}  # fmt: skip
_KEYS = ("gpu", "python", "place", "system", "machine", "cuda", "driver", "NAME==VERSION", "VARIABLE=VALUE in capitals")
_CONTAINERS = ("docker", "kubernetes", "wsl", "colab", "kaggle")


@dataclass(frozen=True)
class GivenFacts:
    """What a user states, each None or empty where nothing is said of it.

    Args:
        declared: versions or ranges of distributions.
        python: version of Python.
        place: one of PLACES.
        system: "linux", "darwin" or "win32".
        machine: "x86_64", "arm64", ...
        gpus: names of processors; "none" is said by `no_gpu`.
        no_gpu: whether there is none.
        cuda: CUDA that the driver runs.
        driver: version of the driver.
        variables: environment variables.
    """

    declared: tuple[Declared, ...] = ()
    python: str | None = None
    place: str | None = None
    system: str | None = None
    machine: str | None = None
    gpus: tuple[Gpu, ...] = ()
    no_gpu: bool = False
    cuda: str | None = None
    driver: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is stated."""
        return self != GivenFacts()


def read_facts(words: Sequence[str]) -> GivenFacts:
    """Read the words of all `--fact`.

    Raises:
        InputError: what can't be read, all of it.
    """
    facts = GivenFacts()
    problems: list[str] = []
    for word in words:
        try:
            facts = _with(facts, word.strip())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return facts


def _with(facts: GivenFacts, word: str) -> GivenFacts:
    key, equals, value = word.partition("=")
    key, value = key.strip(), value.strip()
    if equals and not value.startswith("=") and re.fullmatch(r"\w+", key):
        if key.isupper():
            return replace(facts, variables=(*facts.variables, (key, value)))
        return _with_key(facts, key.lower(), value)
    try:
        requirement = Requirement(word)
    except InvalidRequirement:
        raise InputError(f"--fact {word}: allowed are {', '.join(_KEYS)}") from None
    name = canonicalize_name(requirement.name)
    if name == "python":
        return replace(facts, python=str(requirement.specifier).lstrip("="))
    return replace(facts, declared=(*facts.declared, Declared(name, str(requirement.specifier), "--fact", word)))


def _with_key(facts: GivenFacts, key: str, value: str) -> GivenFacts:
    if key == "gpu":
        if value.lower() in ("none", "no", "cpu"):
            return replace(facts, no_gpu=True)
        return replace(facts, gpus=(*facts.gpus, Gpu(value)))
    if key == "python":
        if not re.fullmatch(r"\d+\.\d+(\.\d+)?\w*", value):
            raise InputError(f"--fact python={value}: a version such as 3.11 is allowed")
        return replace(facts, python=value)
    if key == "place":
        if value.lower() not in PLACES:
            raise InputError(f"--fact place={value}: allowed are {', '.join(PLACES)}")
        return replace(facts, place=None if value.lower() == "local" else value.lower())
    if key == "system":
        if value.lower() not in _SYSTEMS:
            raise InputError(f"--fact system={value}: allowed are linux, macos and windows")
        return replace(facts, system=_SYSTEMS[value.lower()])
    if key == "machine":
        return replace(facts, machine=value)
    if key in ("cuda", "driver"):
        if not re.fullmatch(r"\d+(\.\d+)*", value):
            raise InputError(
                f"--fact {key}={value}: a version such as {'12.4' if key == 'cuda' else '550.90'} is allowed"
            )
        return replace(facts, cuda=value) if key == "cuda" else replace(facts, driver=value)
    meant = nearest(key, ("gpu", "python", "place", "system", "machine", "cuda", "driver"))
    if re.match(r"\d", value):
        raise InputError(f"--fact {key}={value}: a version has two =: {key}=={value}")
    raise InputError(f"--fact {key}={value}: there is no {key}" + f"; did you mean {meant}?" * bool(meant)
                     + f" Allowed are {', '.join(_KEYS)}")  # fmt: skip


def add_to_environment(environment: Environment, facts: GivenFacts) -> Environment:
    """Return an environment in which what the user states overrules what was read."""
    stated = {one.name for one in facts.declared}
    interpreter = environment.interpreter
    if facts.python or facts.system or facts.machine:
        interpreter = interpreter or Interpreter("", "")
        interpreter = replace(
            interpreter,
            version=facts.python or interpreter.version,
            sys_platform=facts.system or interpreter.sys_platform,
            machine=facts.machine or interpreter.machine,
        )
    machine = environment.machine
    if facts.gpus or facts.no_gpu or facts.cuda or facts.driver or facts.place in _CONTAINERS:
        machine = machine or Machine()
        machine = replace(
            machine,
            gpus=facts.gpus or (() if facts.no_gpu else machine.gpus),
            driver=facts.driver or machine.driver,
            driver_cuda=facts.cuda or machine.driver_cuda,
            container=facts.place if facts.place in _CONTAINERS else machine.container,
        )
    return replace(
        environment,
        interpreter=interpreter,
        machine=machine,
        installed=tuple(one for one in environment.installed if one.name not in stated),
        declared=(*facts.declared, *(one for one in environment.declared if one.name not in stated)),
        variables={**environment.variables, **dict(facts.variables)},
    )


def add_to_failure(failure: Failure, facts: GivenFacts) -> Failure:
    """Return a failure whose platform is as the user states it, where he does."""
    platform = failure.platform
    return replace(
        failure,
        platform=replace(
            platform,
            sys_platform=facts.system or platform.sys_platform,
            python=facts.python or platform.python,
            place=facts.place or platform.place,
            gpus=facts.gpus or platform.gpus,
            driver=facts.driver or platform.driver,
        ),
    )
