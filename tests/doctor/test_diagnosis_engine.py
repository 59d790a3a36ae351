"""The engine: what mechanisms say is merged and ranked, the first cause first; too little is no verdict."""

from types import SimpleNamespace

from doctor.case import Case
from doctor.diagnosis.engine import MECHANISMS, diagnose
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Raised
from doctor.finding import Change, Finding
from doctor.knowledge.rules import Rule
from tests.doctor.told_knowledge import knowing, release

KNOWN = SimpleNamespace(rules=(), metadata=SimpleNamespace(date="2026-11-28"), symbols=None)
CHAIN = Failure("python", (Raised("ImportError", "first"), Raised("RuntimeError", "Failed to import x: second")))


def finding(name: str, sign: str, confidence: float, **more) -> Finding:
    always = {"branch": "import/wrong_version", "level": "error", "verdict": name}
    return Finding(name, **{**always, **more}, confidence=confidence, evidence=(sign,))


def answer(*said, failure: Failure | None = CHAIN):
    return diagnose(Case(Environment("v"), failure), KNOWN, (lambda case, knowledge: iter(said),))


def test_of_two_as_sure_the_first_cause_of_the_chain_comes_first():
    late = finding("late", "RuntimeError: Failed to import x: second", 0.8, culprits=("x",))
    early = finding("early", "ImportError: first", 0.78, culprits=("y",))
    assert [one.id for one in answer(late, early).findings] == ["early", "late"]


def test_what_says_the_same_is_one_finding_with_all_evidence_and_changes():
    pins = [Change("pin", "a", ("x<1",)), Change("pin", "b", ("y>2",)), Change("pin", "c", ("x<1",))]
    one = finding("one", "ImportError: first", 0.9, culprits=("x",), changes=(pins[0],))
    two = finding("two", "seen too", 0.5, culprits=("x", "y"), changes=(pins[1], pins[2]), not_this="no")
    (both,) = answer(two, one).findings
    assert both.id == "one" and both.evidence == ("ImportError: first", "seen too") and both.not_this == "no"
    assert [change.text for change in both.changes] == ["a", "b"] and both.culprits == ("x", "y")


def test_a_guess_is_no_verdict_and_what_was_ruled_out_is_told():
    told = answer(finding("guess", "ImportError: first", 0.2), "not shadowed", "not shadowed")
    assert told.findings == () and told.ruled_out == ("not shadowed",)
    assert told.notes == ("Too unsure to be a verdict: guess",) and told.knowledge_date == "2026-11-28"


def test_without_a_failure_the_graver_comes_first():
    note = finding("note", "", 0.99, level="note", culprits=("x",))
    error = finding("error", "", 0.5, culprits=("y",))
    assert [one.id for one in answer(note, error, failure=None).findings] == ["error", "note"]


def test_a_rule_whose_versions_speak_against_it_is_told_as_ruled_out():
    says = {"branch": "import/wrong_version", "verdict": "v", "why": "w", "source": "https://x"}
    rule = Rule("r", "f.yaml", {**says, "error": "first", "packages": {"x": ">=2"}})
    known = SimpleNamespace(rules=(rule,), metadata=KNOWN.metadata, symbols=None)
    told = diagnose(Case(Environment("v", complete=True), CHAIN), known, MECHANISMS[:1])
    assert told.findings == () and told.ruled_out == ("r: x as told is not in >=2",)


def test_a_change_that_a_told_limit_forbids_is_a_conflict_about_the_limit():
    text = "AttributeError: first\naccelerate: <=0.33.0 forced by the range check"
    failure = Failure("python", (Raised("AttributeError", "first"),), text=text)
    where = Environment("v", declared=(Declared("accelerate", "<=0.33.0"),))
    pin = Change("pin", "a", ("accelerate>=1.0",))
    said = finding("one", "AttributeError: first", 0.8, branch="runtime/api_change", changes=(pin,))
    (one,) = diagnose(Case(where, failure), KNOWN, (lambda case, knowledge: iter([said]),)).findings
    assert one.branch == "resolve/conflict" and one.changes[0].text.startswith("Raise what holds accelerate back")
    free = diagnose(Case(Environment("v"), failure), KNOWN, (lambda case, knowledge: iter([said]),)).findings
    assert free == (said,)


def test_findings_of_one_line_about_the_same_two_are_one():
    sign = "ImportError: first"
    (both,) = answer(
        finding("one", sign, 0.9, culprits=("x", "y")), finding("two", sign, 0.8, culprits=("y", "x"))
    ).findings
    assert both.id == "one" and both.culprits == ("x", "y")


def test_a_move_that_a_model_of_the_text_can_not_use_comes_last():
    known = knowing({"transformers": [release("4.38"), release("4.39")]}, model_types={"whale2": "4.39-"})
    pins = (Change("pin", "back", ("transformers<4.39",)), Change("pin", "on", ("trl>=0.8",)))
    said = finding("one", "ImportError: first", 0.9, changes=pins)
    failure = Failure("python", CHAIN.raised, text="ImportError: first\nmodel type whale2 is not known")
    (one,) = diagnose(Case(Environment("v"), failure), known, (lambda case, knowledge: iter([said]),)).findings
    assert [change.text for change in one.changes] == ["on", "back"]
    assert one.changes[1].disturbs == ("the model that the text names needs transformers>=4.39",)
