"""How often the doctor is right on told cases: `python bench/doctor.py CASES.jsonl [--json OUT] [--verbose]`.

Each case is pasted as a person would: its error lines, then `NAME: TEXT` for what is told of its packages, then
`Platform: TEXT`. Nothing else of a case reaches the doctor.

How an answer is judged, by its first finding alone:

- branch: it is the case's branch, letter by letter; top level: what stands before the slash is.
- constraint: the known one is a list of alternatives, `A | B`; what follows `while` or stands in parentheses says when,
  and is not asked. An alternative of pins is met if, for each of its distributions that the answer moves or that the
  told versions break, what the answer would install (the newest release of its range) lies in the known range, and
  the answer moves one of them at least. Any other alternative is met by a change of the kind that its words name
  (rename, restart, clean, environment, system, code, option, hardware), or that installs a distribution named
  there. `first change` asks it of the first change of
  the finding, `any change` of one of its alternatives.
- cause: the branch is right, and a culprit or a changed distribution is among those that the constraint names, or
  its words' kind is among the kinds of the changes. `--verbose` prints verdict and known cause side by side.
- trap: of cases whose obvious answer is wrong, the first finding isn't right and its first change is of a
  distribution or a kind that the obvious answer names.
- don't know: no finding.

Intervals are Wilson's, 90 %.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from doctor.case import Case  # noqa: E402
from doctor.diagnosis.engine import diagnose  # noqa: E402
from doctor.environment.facts import Environment  # noqa: E402
from doctor.failure.read import read_failure  # noqa: E402
from doctor.finding import Change, Diagnosis, Finding  # noqa: E402
from doctor.knowledge.base import Knowledge  # noqa: E402

# Words of a constraint or of an obvious answer, and the kinds of change that they ask for.
_WORDS = (
    (r"\brenam", ("rename",)),
    (r"\brestart|live kernel", ("restart",)),
    (r"\bclean|leftover|remove the old|stale|force-reinstall|reinstall", ("clean", "uninstall", "install")),
    (r"\buninstall|must not be installed together", ("uninstall", "clean")),
    (r"fresh cache", ("clean",)),
    (r"\bone [\w-]+ on sys\.path", ("uninstall", "environment")),
    (r"environment variable|[A-Z][A-Z_]{4,}=|user.site|LD_LIBRARY_PATH|PYTHONPATH|PYTHONNOUSERSITE", ("environment",)),
    (
        r"^system:|toolkit|headers|container|driver|shm|compiler|CUDA_HOME|nvcc|apt|ulimit|disk|free the GPU",
        ("system",),
    ),
    (r"code change|\bcode\b|Config\(|length|argument|override|dtype|bf16|input|resize|data", ("code",)),
    (r"allow-list|globals|\w_\w+ (?:with|for) ", ("code",)),
    (r"disable|option|flag|no-build-isolation|batch|attn_implementation|reduce", ("option", "code", "environment")),
    (r"\binstalls?\b|pip install|built for|wheel|build|present|avoid", ("install", "pin")),
    (r"must not be installed together|one \S+ on sys.path|fresh cache", ("uninstall", "clean")),
    (r"GPU|hardware|card|capability", ("hardware", "system")),
)
_PIN = re.compile(r"([A-Za-z][\w.-]*)\s*((?:[<>=!~]=?|===)\s*[\w.*+!-]+(?:\s*,\s*(?:[<>=!~]=?)\s*[\w.*+!-]+)*)")


@dataclass
class Judgement:
    """What was right of one answer; `trap` is None for a case without one."""

    case: str
    branch: bool
    top: bool
    cause: bool
    first_change: bool
    any_change: bool
    trapped: bool | None
    unknown: bool
    confidence: float = 0.0


def pasted(case: dict[str, Any]) -> str:
    """Return what a person would paste of a case."""
    lines = [*case["error"], *(f"{name}: {text}" for name, text in case["packages"].items())]
    return "\n".join([*lines, f"Platform: {case['platform']}"]) + "\n"


def alternatives(constraint: str) -> Iterator[tuple[dict[str, str], str]]:
    """Split a constraint.

    Args:
        constraint: such as "trl>=0.8.0 while transformers>=4.39 | code change".

    Yields:
        For each alternative its pins, name to range, and its words.
    """
    for part in constraint.split(" | "):
        wanted = re.split(r"\bwhile\b", part)[0]
        if re.match(r"\w+_\w+\b", wanted) and not _PIN.match(wanted):
            wanted = ""  # "processing_class with trl>=0.16": a change of the code, and when it is right
        pins = {canonicalize_name(name): re.sub(r"\s+", "", one) for name, one in _PIN.findall(wanted)}
        yield {name: one for name, one in pins.items() if not name.isupper() and _is_range(one)}, part


def _is_range(text: str) -> bool:
    try:
        for part in SpecifierSet(text):
            Version(part.version.removesuffix(".*"))
    except ValueError:
        return False
    return True


def installs(requirement: Requirement, knowledge: Knowledge) -> Version | None:
    """Return the newest release of a requirement's range; without metadata, the limit itself or what lies below it."""
    newest = knowledge.metadata.newest(requirement.name, specifier=str(requirement.specifier))
    if newest:
        return newest.version
    limits = [Version(one.version.removesuffix(".*")) for one in requirement.specifier]
    below = [Version(".".join(map(str, _before(one)))) for one in limits]
    above = [Version(f"{one}.post999") if one.local is None else one for one in limits]
    return max((one for one in (*limits, *below, *above) if requirement.specifier.contains(one)), default=None)


def _before(version: Version) -> list[int]:
    release = list(version.release)
    for place in range(len(release) - 1, -1, -1):
        if release[place]:
            return [*release[:place], release[place] - 1, 999]
    return [0]


def meets(change: Change, pins: dict[str, str], words: str, where: Environment, knowledge: Knowledge) -> bool:
    """Return whether a change satisfies one alternative of the known constraint."""
    marked = re.match(r"\s*([\w-]+)\s*;", words)
    if marked:  # "vllm; sys_platform=='linux'": asked for under a condition
        return any(one.marker and one.name == marked[1] for one in map(Requirement, change.requirements))
    if not pins:
        named = {canonicalize_name(Requirement(one).name) for one in change.requirements}
        return change.kind in _kinds(words) or any(re.search(rf"(?<![\w-]){one}(?![\w-])", words) for one in named)
    asked = {canonicalize_name(one.name): one for one in map(Requirement, change.requirements)}
    moved = [name for name in pins if name in asked]
    if not moved:
        return False
    for name, known in pins.items():
        if name in asked:
            version = installs(asked[name], knowledge)
            if version is None or not SpecifierSet(known).contains(version, prereleases=True):
                return False
        elif where.may_be(name, known) is False:
            return False
    return True


def _kinds(words: str) -> set[str]:
    return {kind for expression, kinds in _WORDS if re.search(expression, words) for kind in kinds}


def judge(case: dict[str, Any], answer: Diagnosis, where: Environment, knowledge: Knowledge) -> Judgement:
    """Judge an answer by what is known of a case."""
    first = answer.findings[0] if answer.findings else None
    trap = bool(case["trap"])
    if first is None:
        return Judgement(case["id"], False, False, False, False, False, False if trap else None, True)
    known = list(alternatives(case["constraint"]))
    ways = [any(meets(change, *one, where, knowledge) for one in known) for change in first.changes]
    branch = first.branch == case["category"]
    cause = branch and _agrees(first, case["constraint"], known)
    trapped = not cause and _is_obvious(first, case["obvious_but_wrong"] or "")
    return Judgement(
        case["id"],
        branch,
        first.branch.split("/")[0] == case["category"].split("/")[0],
        cause,
        bool(ways) and ways[0],
        any(ways),
        trapped if trap else None,
        False,
        first.confidence,
    )


def _agrees(finding: Finding, constraint: str, known: list[tuple[dict[str, str], str]]) -> bool:
    named = {canonicalize_name(name) for name, _ in _PIN.findall(constraint)}
    moved = {canonicalize_name(Requirement(one).name) for change in finding.changes for one in change.requirements}
    if named & {*map(canonicalize_name, finding.culprits), *moved}:
        return True
    if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", constraint) for name in finding.culprits):
        return True
    kinds = {change.kind for change in finding.changes}
    return any(kinds & _kinds(words) for pins, words in known if not pins)


def _is_obvious(finding: Finding, obvious: str) -> bool:
    if not finding.changes or not obvious:
        return False
    change = finding.changes[0]
    names = {Requirement(one).name.lower() for one in change.requirements}
    if change.kind in ("pin", "install"):
        return any(re.search(rf"\b{re.escape(name)}\b", obvious, re.IGNORECASE) for name in names)
    return change.kind in _kinds(obvious)


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 90 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, share = 1.6449, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def table(judged: list[Judgement]) -> dict[str, tuple[int, int]]:
    """Return for each row of the table how many were so, of how many."""
    of = len(judged)
    traps = [one for one in judged if one.trapped is not None]
    return {
        "branch right": (sum(one.branch for one in judged), of),
        "top level right": (sum(one.top for one in judged), of),
        "cause right at first place": (sum(one.cause for one in judged), of),
        "constraint met, first change": (sum(one.first_change for one in judged), of),
        "constraint met, any change": (sum(one.any_change for one in judged), of),
        "traps: obvious answer first": (sum(bool(one.trapped) for one in traps), len(traps)),
        "don't know": (sum(one.unknown for one in judged), of),
    }


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, help="a case on each line, as JSON")
    parser.add_argument("--only", choices=("odd", "even"), help="the first, third, ... or the second, fourth, ... only")
    parser.add_argument("--json", type=Path, help="write all judgements to this file")
    parser.add_argument("--verbose", action="store_true", help="print every answer that is not right in all")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.cases.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = lines[{"odd": 0, "even": 1}.get(arguments.only, 0) :: 2 if arguments.only else 1]
    knowledge = Knowledge()
    judged = []
    for case in lines:
        failure = read_failure(pasted(case))
        where = Environment("the text").with_declared(failure.stated)
        answer = diagnose(Case(where, failure), knowledge)
        judged.append(judge(case, answer, where, knowledge))
        if arguments.verbose and not (judged[-1].cause and judged[-1].first_change):
            _print_miss(case, answer, judged[-1])
    print(f"{len(judged)} cases of {arguments.cases.name}; metadata of {knowledge.metadata.date}\n")
    rows = table(judged)
    for name, (right, of) in rows.items():
        low, high = wilson(right, of)
        print(f"{name:32} {right:3} of {of:3}  {right / max(of, 1):6.1%}  [{low:.1%}, {high:.1%}]")
    print("\nconfidence of the first finding, and how often its cause is right")
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
        inside = [one for one in judged if not one.unknown and low <= one.confidence < high]
        if inside:
            print(f"  {low:.1f} to {min(high, 1):.1f}   {sum(one.cause for one in inside):3} of {len(inside):3}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"table": rows, "cases": [asdict(one) for one in judged]}, indent=1))
    return 0


def _print_miss(case: dict[str, Any], answer: Diagnosis, judged: Judgement) -> None:
    wrong = [name for name in ("branch", "cause", "first_change") if not getattr(judged, name)]
    print(f"{case['id']} ({', '.join(wrong)} not right)  known {case['category']}: {case['constraint']}")
    for line in case["error"][:2]:
        print(f"    text   {line[:160]}")
    for one in answer.findings[:2]:
        print(f"    says   {one.branch} {one.confidence:.2f} {one.id}: {one.verdict[:200]}")
        for change in one.changes[:3]:
            print(f"           {change.kind} {' '.join(change.requirements)} {change.text[:120]}")
    if not answer.findings:
        print("    says   nothing;", "; ".join(answer.ruled_out)[:300])
    print()


if __name__ == "__main__":
    sys.exit(main())
