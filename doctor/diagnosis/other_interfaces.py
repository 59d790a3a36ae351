"""Calls and attributes that don't fit what is there, where no table tells more: only the kind of fault is sure."""

import re
from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding

_ATTRIBUTE = re.compile(
    r"'(?P<class>(?!NoneType|Tensor|Series|DataFrame|Parameter)[A-Z]\w*[a-z]\w*)' object"
    r" has no attribute '(?P<name>\w+)'"
)
_POSITIONAL = re.compile(
    r"(?P<function>[\w.<>]+)\(\) (?:takes (?:from \d+ to )?\d+ positional arguments? but \d+ (?:were|was) given"
    r"|missing \d+ required (?:positional|keyword-only) arguments?: (?P<what>[^\n]+))"
)


def find_missing_attributes(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find attributes of libraries' objects that are not there; what is known of one by name is told by rules."""
    for line, raised in signs(case):
        found = _ATTRIBUTE.search(line)
        inside = raised.frames[-1].function if raised and raised.frames else ""
        if found and inside != "__del__" and "Exception ignored in" not in line:
            yield _lacks(case, found["class"], found["name"], line.splitlines()[0].strip(), importer_of(raised))


def _lacks(case: Case, holder: str, name: str, sign: str, top: str | None) -> Finding:
    return Finding(
        "object-lacks-attribute",
        "runtime/api_change",
        "error",
        0.45,
        f"{top or 'The calling code'} asks a {holder} for {name}, which it does not have in the release that is here.",
        (sign,),
        "An attribute was added, renamed or removed between the release that the code was written for and this one.",
        (Change("code", f"Look up what {holder} calls {name} in the installed release, or move one of the two."),),
        culprits=(top.replace("_", "-"),) if top else (),
        source="the message itself",
    )


def find_wrong_arguments(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find calls with another number of arguments than a function takes, of which a library is a part."""
    for line, raised in signs(case):
        found = _POSITIONAL.search(line)
        if found and ("." in found["function"] or importer_of(raised)):
            yield _misfit(found["function"], line, raised)


def _misfit(function: str, line: str, raised: Raised | None) -> Finding:
    top = importer_of(raised)
    return Finding(
        "arguments-of-another-release",
        "runtime/api_change",
        "error",
        0.45,
        f"{top or 'The calling code'} calls {function} with other arguments than it takes in the release that is here.",
        (line.splitlines()[0].strip(),),
        "A library changed the arguments of a function that another, or an override of one's own, was written for.",
        (
            Change(
                "code", f"Give {function} the arguments of the installed release, or *args and **kwargs to pass on."
            ),
            Change("code", "Or move the caller or the called library to the release that the other was written for."),
        ),
        culprits=(top.replace("_", "-"),) if top else (),
        source="the message itself",
    )
