"""Cases as somebody pastes them: a text, and versions that it states."""

from doctor.case import Case
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Platform, Raised


def pasted(text: str, *, system: str | None = None, python: str | None = None, place: str | None = None, **stated):
    """A case of a text; versions as torch="2.6.0" or, as a range, sgl_kernel="<0.2"."""
    raised = []
    for line in text.splitlines():
        kind, split, message = line.partition(": ")
        if split and kind.split(".")[-1].endswith(("Error", "Exception")):
            raised.append(Raised(kind.split(".")[-1], message))
    told = tuple(
        Declared(name.replace("_", "-"), one if one[:1] in "<>=!~" else f"=={one}") for name, one in stated.items()
    )
    failure = Failure("python", tuple(raised), text=text, stated=told, platform=Platform(system, python, place))
    return Case(Environment("the text", declared=told), failure)


def said(mechanism, case, knowledge=None):
    """The findings of a mechanism."""
    return [one for one in mechanism(case, knowledge) if not isinstance(one, str)]


def only(mechanism, case, knowledge=None):
    """The one finding of a mechanism."""
    (one,) = said(mechanism, case, knowledge)
    return one


def requirements(finding) -> list[tuple[str, ...]]:
    """What each change that installs something installs."""
    return [change.requirements for change in finding.changes if change.requirements]
