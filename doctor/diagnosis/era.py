"""Two distributions of different times: what was newest when the older one was made is a proposal, to be proved.

The last resort: nothing is known of the breakage itself, only that one declares no upper limit for another that has
moved on since.
"""

from collections.abc import Iterator
from datetime import timedelta

from packaging.utils import canonicalize_name

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of
from doctor.diagnosis.moves import known_names, requires_of
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release

# Errors that a changed interface shows itself by, and the branch of each.
_KINDS = {
    "ImportError": "import/wrong_version",
    "ModuleNotFoundError": "import/wrong_version",
    "AttributeError": "runtime/api_change",
    "TypeError": "runtime/api_change",
    "NotImplementedError": "runtime/api_change",
    "KeyError": "runtime/api_change",
    "ValueError": "runtime/api_change",
}
# Releases within this time of another are of its era.
_GRACE = timedelta(days=30)
_FAR = timedelta(days=150)


def find_other_eras(case: Case, knowledge: Known) -> Iterator[Said]:
    """Propose, for what raised the error, the releases of its own time of what it needs."""
    raised = case.failure.first if case.failure else None
    if raised is None or raised.type not in _KINDS:
        return
    top = importer_of(raised)
    users = [name for name in known_names(case) if not top or name in knowledge.metadata.owners(top)]
    found = []
    for user in users:
        release = _release(case, knowledge, user)
        for one in requires_of(case, knowledge, user) if release else ():
            other = _release(case, knowledge, one.name)
            upper = any(part.operator in ("<", "<=", "==", "~=") for part in one.specifier)
            if release and other and not upper and other.uploaded - release.uploaded > _FAR:
                found.append((other.uploaded - release.uploaded, user, release, canonicalize_name(one.name), other))
    found.sort(key=lambda each: (-_named(each[3], raised.line), -each[0]))
    for _, user, release, name, other in found[:2]:
        changes = of_one_time(case, knowledge, user, name)
        if changes:
            named = _named(name, raised.line)
            yield _finding(
                user, release, name, other, changes, raised.line, 0.45 if named else 0.32, _KINDS[raised.type]
            )


def of_one_time(case: Case, knowledge: Known, user: str, name: str) -> tuple[Change, ...]:
    """Return the moves that bring two distributions to one time, () where they are, or their dates aren't known."""
    release, other = _release(case, knowledge, user), _release(case, knowledge, name)
    if release is None or other is None or user == name or abs(other.uploaded - release.uploaded) <= _FAR:
        return ()
    if other.uploaded > release.uploaded:
        then = knowledge.metadata.newest(name, before=release.uploaded + _GRACE)
        if then is None or then.version.release[:2] == other.version.release[:2]:
            return ()
        return (
            Change(
                "pin",
                f"Try the release of {name} of the time of {user} {release.version}.",
                (f"{name}<={then.version}",),
            ),
            Change(
                "pin",
                f"Or raise {user} to a release of the time of {name} {other.version}.",
                (f"{user}>{release.version}",),
            ),
        )
    then = knowledge.metadata.newest(name, before=release.uploaded)
    if then is None or then.version <= other.version:
        return ()
    return (Change("pin", f"Try the {name} that was new with {user} {release.version}.", (f"{name}>={then.version}",)),)


def _named(name: str, line: str) -> bool:
    return name.replace("-", "_") in line.replace("-", "_")


def _release(case: Case, knowledge: Known, name: str) -> Release | None:
    version = case.environment.version(name)
    return next((one for one in knowledge.metadata.releases(name) if one.version == version), None)


def _finding(
    user: str,
    release: Release,
    name: str,
    other: Release,
    changes: tuple[Change, ...],
    sign: str,
    confidence: float,
    branch: str,
) -> Finding:
    return Finding(
        "other-era",
        branch,
        "error",
        confidence,
        f"{user} {release.version} is of {release.uploaded:%B %Y}, {name} {other.version} of {other.uploaded:%B %Y}: "
        f"perhaps too far apart.",
        (sign, f"{user} {release.version} asks for {name} without an upper limit (declared metadata)"),
        f"Nothing declares that {user} {release.version} does not go with {name} {other.version}; nobody could try it.",
        changes,
        culprits=(name, user),
        source="dates of releases and declared metadata",
    )
