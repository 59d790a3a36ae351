"""Rules of doctor/rules: each is well made, fits its own examples, and nothing that it says it does not."""

import re

import pytest
from conflicts import CONFLICTS, Conflict
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from doctor.case import Case
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Platform, Raised
from doctor.knowledge.rules import Rule, RuleError, matches, read_rules
from doctor.knowledge.symbols import SHIPPED, Symbols, covers

RULES = read_rules()
EXAMPLES = [(rule, number) for rule in RULES for number in range(len(rule.content["tests"]))]


def case_of(example: dict) -> Case:
    """A case of a rule's own example: a text, versions and, where told, the surroundings."""
    told_of = (example.get("packages") or {}).items()
    declared = tuple(Declared(name, one if one[:1] in "<>=!~" else f"=={one}") for name, one in told_of)
    where = Environment("the text", declared=declared, variables=example.get("variables") or {})
    if "text" not in example:
        return Case(where)
    told = Platform(example.get("system"), example.get("python"), example.get("place"))
    raised = tuple(
        Raised(kind, message)
        for kind, split, message in (line.partition(": ") for line in example["text"].splitlines())
        if split and kind.isidentifier() and kind.endswith(("Error", "Exception", "Conflict"))
    )
    return Case(where, Failure("python", raised, text=example["text"], platform=told))


def fitting(case: Case) -> dict[str, object]:
    return {one.rule.id: one.finding for one in matches(RULES, case) if one.finding}


@pytest.mark.parametrize("rule, number", EXAMPLES, ids=lambda one: one.id if isinstance(one, Rule) else str(one))
def test_a_rule_fits_its_examples(rule, number):
    example = rule.content["tests"][number]
    found = fitting(case_of(example))
    assert (rule.id in found) is not bool(example.get("not"))
    if example.get("first"):
        assert found[rule.id].confidence == max(one.confidence for one in found.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda one: one.id)
def test_a_rule_says_where_from_and_has_examples_of_both_kinds(rule):
    kinds = {bool(one.get("not")) for one in rule.content["tests"]}
    assert kinds == {True, False}, f"{rule}: needs an example that fits and one that does not"


FACTS = [(rule, fact) for rule in RULES for fact in rule.content["confirmed"].get("facts", ())]


@pytest.fixture(scope="module")
def symbols() -> Symbols:
    return Symbols(SHIPPED)


@pytest.mark.parametrize("rule, fact", FACTS, ids=lambda one: one.id if isinstance(one, Rule) else one.split(":")[1])
def test_the_table_of_symbols_says_what_a_rule_has_from_it(rule, fact, symbols):
    project, what, wanted = fact.split(": ")
    if what.endswith(" (module)"):
        spans = symbols.modules(project, what.removesuffix(" (module)"))
    elif "(" in what:
        function, _, keyword = what.removesuffix(")").partition("(")
        spans = symbols.parameters(project, function, keyword)
    elif "." in what:
        spans = symbols.names(project, *what.rsplit(".", 1))
    else:
        spans = symbols.modules(project, what)
    assert spans, f"{rule}: the table doesn't know {what}"
    having = {one for one in symbols.versions(project) if covers(spans, one)}
    ranges = [SpecifierSet(one, prereleases=True) for one in wanted.split(" || ")]
    assert having == {one for one in symbols.versions(project) if any(one in each for each in ranges)}, (
        f"{rule}: {what} is in {' and '.join(one.specifier for one in spans)}, not in {wanted}"
    )


INSTALLED = [rule for rule in RULES if rule.content["confirmed"]["how"] == "installed, failed, mended"]


@pytest.mark.parametrize("rule", INSTALLED, ids=lambda one: one.id)
def test_what_is_said_to_be_installed_and_to_fail_is_built_as_a_real_conflict(rule):
    assert any(
        conflict.mended
        and any(re.search(error, conflict.expected) for error in rule.listed("error"))
        and all(_may_be(conflict, name, one) for name, one in (rule.packages or ({},))[0].items())
        for conflict in CONFLICTS
    ), f"{rule}: no conflict of conflicts.py fails so and is mended"


def _may_be(conflict: Conflict, name: str, specifier: str) -> bool:
    asked = [Requirement(one) for one in (*conflict.packages, *conflict.after, *conflict.overrides)]
    pinned = [next(iter(one.specifier)).version for one in asked if one.name == name and "==" in str(one.specifier)]
    return not pinned or SpecifierSet(specifier, prereleases=True).contains(pinned[-1])


def test_an_answer_says_that_nobody_confirmed_its_rule():
    answers = {}
    for how in ("not confirmed", "wheels read"):
        rule = rule_of(error="no thing", confirmed={"how": how, "on": "2026-11-28"})
        (found,) = matches([rule], case_of({"text": "ImportError: no thing"}))
        answers[how] = found.finding.source
    assert answers == {"not confirmed": "https://x (not confirmed)", "wheels read": "https://x"}


def test_matching_takes_milliseconds():
    import time

    case = case_of({"text": "ImportError: cannot import name 'nothing' from 'nowhere'\n" * 20})
    list(matches(RULES, case))
    begin = time.process_time()
    list(matches(RULES, case))
    assert time.process_time() - begin < 0.25


BARE = (
    "branch: import/shadowed, verdict: v, why: w, source: https://x, confirmed: {how: thread only, on: 1}, tests: [{}]"
)
FULL = "- {id: x, error: e, " + BARE
NO_BRANCH = FULL.replace("branch: import/shadowed, ", "")


@pytest.mark.parametrize(
    "text, told",
    [
        ("id: x", "must hold a list"),
        ("- branch: import/shadowed", "no `id`"),
        ("- {id: x, brunch: y}", "x: brunch: no such key; allowed are id"),
        ("- {id: x, branch: import/shadowed}", "x: verdict: is missing"),
        (NO_BRANCH + ", branch: import/odd}", "branch: import/odd is none of import/not_installed"),
        (FULL + ", packages: {torch: 2}}", "packages: torch: 2 is no range"),
        (FULL + ", level: bad}", "level: must be one of error"),
        (FULL + ", confidence: 2}", "confidence: must be above 0"),
        (FULL + ", changes: [{kind: odd, text: y}]}", "changes: each has a `text` and a `kind` of pin"),
        (FULL + ", changes: [{kind: pin, text: y, requirements: ['a b']}]}", "'a b' is no requirement"),
        (FULL + ", changes: [{kind: system, text: y, requirements: [libstdcxx-ng]}]}", "only pin, install, uninstall"),
        (FULL.replace("[{}]", "[{packages: {trl: 0.10}}]") + "}", "packages: trl: write 0.1 in quotes"),
        (FULL + "}\n" + FULL + "}", "the id is taken already in a.yaml"),
        (FULL.replace("thread only", "read") + "}", "confirmed: how: 'read' is none of installed, failed, mended; "),
        (FULL.replace("thread only", "table of symbols") + "}", "confirmed: facts: are missing"),
        (FULL.replace("https://x", "a book") + "}", "source: 'a book' begins with none of https://; symbols of"),
        (FULL.replace("https://x", "'from knowledge, not looked up'") + "}", "can't be confirmed by 'thread only'"),
        ("- {id: x, " + BARE + "}", "error: is missing, and there is no `environment: true`"),
        ("- [", "a.yaml is no YAML"),
    ],
)
def test_a_bad_rule_is_refused_by_file_rule_and_key(tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RuleError, match="a.yaml") as refused:
        read_rules(tmp_path)
    assert told in str(refused.value)


def rule_of(**keys) -> Rule:
    always = {"branch": "import/wrong_version", "verdict": "trl {trl} lacks {what}", "why": "w", "source": "https://x"}
    confirmed = {"confirmed": {"how": "thread only", "on": "2026-11-28"}}
    return Rule("r", "f.yaml", {**always, **confirmed, **keys})


def test_versions_rule_out_confirm_or_leave_open():
    rule = rule_of(error="no (?P<what>[a-z]+)", packages={"trl": "<0.8"}, confidence=1.0)
    found = {}
    for name, packages in {"yes": {"trl": "0.7.11"}, "no": {"trl": "0.9"}, "open": {}}.items():
        (found[name],) = matches([rule], case_of({"text": "ImportError: no thing", "packages": packages}))
    assert found["yes"].finding.verdict == "trl 0.7.11 lacks thing" and found["yes"].finding.confidence == 1.0
    assert found["no"].finding is None and found["no"].against == "r: trl 0.9 is not in <0.8"
    assert found["open"].finding.verdict == "trl lacks thing" and found["open"].finding.confidence == 0.85


def test_a_change_that_is_done_or_does_not_hold_is_left_out():
    changes = [
        {"kind": "pin", "text": "done", "requirements": ["trl<0.8"]},
        {"kind": "pin", "text": "other era", "requirements": ["trl>=1"], "holds": ["peft>=1"]},
        {"kind": "pin", "text": "right", "requirements": ["trl>=0.8"], "holds": ["peft<1"]},
    ]
    case = case_of({"text": "ImportError: no thing", "packages": {"trl": "0.7.11", "peft": "0.9"}})
    (found,) = matches([rule_of(error="no thing", changes=changes)], case)
    assert [one.text for one in found.finding.changes] == ["right"]


def test_without_a_failure_only_rules_of_environments_that_are_sure_speak():
    asked = rule_of(error="no thing", packages={"trl": "<0.8"}, environment=True)
    silent = rule_of(error="no thing", packages={"trl": "<0.8"})
    here = case_of({"packages": {"trl": "0.7"}})
    assert [bool(one.finding) for one in matches([asked, silent], here)] == [True]
    assert list(matches([asked], case_of({"packages": {}}))) == []
