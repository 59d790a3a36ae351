"""Rules of doctor/rules: each is well made, fits its own examples, and nothing that it says it does not."""

import pytest

from doctor.case import Case
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Platform, Raised
from doctor.knowledge.rules import Rule, RuleError, matches, read_rules

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
    assert all(
        one.startswith(("https://", "declared metadata", "wheels of", "observed:")) for one in rule.listed("source")
    ), rule
    assert set(rule.content["confirmed"]) == {"how", "on"}, rule


def test_matching_takes_milliseconds():
    import time

    case = case_of({"text": "ImportError: cannot import name 'nothing' from 'nowhere'\n" * 20})
    list(matches(RULES, case))
    begin = time.process_time()
    list(matches(RULES, case))
    assert time.process_time() - begin < 0.25


BARE = "branch: import/shadowed, verdict: v, why: w, source: https://x, confirmed: {how: h, on: 1}, tests: [{}]"
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
    return Rule("r", "f.yaml", {**always, **keys})


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
