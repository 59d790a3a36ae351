"""What was proved is kept, shared, recalled and struck out."""

import multiprocessing
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from known import environment

from doctor.case import Case
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Raised
from doctor.finding import Change, Finding
from doctor.memory.fact import BadLine, Fact, read_change, read_line, written, written_change
from doctor.memory.folder import INDEX, MOST_LINES, Memory, changing, read_memory
from doctor.memory.remember import known_good, recall, remember, remember_set, strike
from doctor.proof.outcome import DISPROVED, PROVED, Outcome, Proof, Trial

ERROR = "ImportError: cannot import name 'A' from 'base' (/home/jo/v/site-packages/base/__init__.py)"
HOLD = Change("pin", "Hold base below 2.", requirements=("base<2",))
RAISE = Change("pin", "Raise tool.", requirements=("tool>=2",))
FINDING = Finding("missing-name", "import/wrong_version", "error", 0.9, "tool needs base<2", changes=(HOLD, RAISE),
                  culprits=("base",))  # fmt: skip
FAILED = Outcome(False, 1, (ERROR,), ERROR)
LINE = (
    "- {id} · fails: ImportError: cannot import name 'A' from 'base' · with: base==2.0, tool==1.0 · "
    "mended by: base<2 · on: linux-x86_64, Python 3.11 · proved: 2026-11-28, 1 time, 4.3 s · "
    "found by: missing-name import/wrong_version"
)


def proof(change=HOLD, failed=(), platform="linux-x86_64, Python 3.11.7", error=ERROR):
    before = replace(FAILED, errors=(error,))
    trials = [Trial(one, before) for one in failed] + ([Trial(change, Outcome(True, 0))] if change else [])
    return Proof(PROVED if change else DISPROVED, "", change, before, trials[-1].after if change else None,
                 ("base==2.0", "other==3", "tool==1.0"), ("base==1.1", "tool==1.0"), trials=tuple(trials), seconds=4.31,
                 platform=platform)  # fmt: skip


def fact(number: int, **more) -> Fact:
    given = {"packages": (f"p{number % 30}=={number}",), "platform": "linux-x86_64, Python 3.11",
             "error": f"ImportError: {number}", "date": f"2026-01-{number % 28 + 1:02d}",
             "change": f"p{number % 30}<{number}"} | more  # fmt: skip
    return Fact(**given)


def lines(folder: Path, name: str = INDEX) -> list[str]:
    return (folder / name).read_text().splitlines()


def failure(error=ERROR):
    kind, _, message = error.partition(": ")
    return Failure("python", (Raised(kind, message),))


def test_a_proof_is_one_line_without_places_of_a_machine(tmp_path):
    kept = remember(proof(), FINDING, tmp_path, "2026-11-28")
    assert LINE.format(id=kept.id) in lines(tmp_path)
    assert read_memory(tmp_path) == Memory((kept,))
    again = remember(proof(platform="linux-x86_64, Python 3.11.9"), FINDING, tmp_path, "2026-12-01")
    assert again.id == kept.id and again.times == 2
    assert [one for one in lines(tmp_path) if "2026-12-01, 2 times" in one] and len(read_memory(tmp_path).facts) == 1
    remember(proof(platform="macosx-14.0-arm64, Python 3.11.9"), FINDING, tmp_path, "2026-12-01")
    assert len(read_memory(tmp_path).facts) == 2 and "/home" not in (tmp_path / INDEX).read_text()


def test_the_log_is_named_by_its_digest(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    (log / "proof.json").write_text("{}")
    kept = remember(replace(proof(), folder=str(log)), FINDING, tmp_path / "memory")
    assert len(kept.log) == 16 and f"log {kept.log}, 4.3 s" in (tmp_path / "memory" / INDEX).read_text()


def test_what_is_disproved_is_struck_out_and_proved_again_it_holds(tmp_path):
    remember(proof(), FINDING, tmp_path, "2026-11-28")
    assert remember(proof(None, failed=[HOLD]), FINDING, tmp_path, "2026-11-30") is None
    struck = read_memory(tmp_path).facts[0]
    assert (struck.struck, struck.why[:15]) == ("2026-11-30", "it did not mend")
    line = next(one for one in lines(tmp_path) if one.startswith("- ~~"))
    assert "~~ 2026-11-30: it did not mend it: ImportError" in line
    assert recall(Case(environment("base==2.0", "tool==1.0"), failure()), read_memory(tmp_path)) == ()
    assert remember(proof(), FINDING, tmp_path, "2026-12-02").times == 1
    assert read_memory(tmp_path).facts[0].struck == ""


def test_a_disproof_elsewhere_strikes_nothing(tmp_path):
    remember(proof(), FINDING, tmp_path, "2026-11-28")
    remember(proof(None, failed=[HOLD], platform="macosx-14.0-arm64, Python 3.11.7"), FINDING, tmp_path)
    remember(proof(None, failed=[HOLD], error="OSError: other"), FINDING, tmp_path)
    assert [one.struck for one in read_memory(tmp_path).facts] == [""]
    other = remember(proof(RAISE, failed=[HOLD]), FINDING, tmp_path, "2026-12-01")
    assert {one.change: bool(one.struck) for one in read_memory(tmp_path).facts} == {"base<2": True, "tool>=2": False}
    assert strike(other.id[:6], "by hand", tmp_path).struck and strike("ffff", "no", tmp_path) is None


@pytest.mark.parametrize(
    "here, confidence",
    [(environment("base==2.0", "tool==1.0"), 0.98), (environment("base==2.1", "tool==1.0"), 0.6),
     (Environment("the text"), 0.85), (environment("base==1.1", "tool==1.0"), None),
     (Environment("the text", declared=(Declared("base", "==2.0"), Declared("tool", "==1.0"))), 0.98)],
)  # fmt: skip
def test_the_like_is_recalled(tmp_path, here, confidence):
    kept = remember(proof(), FINDING, tmp_path, "2026-11-28")
    seen = failure("ImportError: cannot import name 'A' from 'base' (unknown location)")
    found = recall(Case(here, seen), read_memory(tmp_path))
    if confidence is None:  # the change is made already: that is not what is wrong
        assert found == ()
        return
    assert [(one.id, one.branch, one.confidence) for one in found] == [
        (f"memory-{kept.id}", "import/wrong_version", confidence)
    ]  # fmt: skip
    assert found[0].changes[0].requirements == ("base<2",) and "2026-11-28 (once)" in found[0].evidence[1]
    assert recall(Case(here, failure("ImportError: cannot import name 'B' from 'base'")), read_memory(tmp_path)) == ()


def test_before_trouble_only_the_very_versions_are_warned_of(tmp_path):
    remember(proof(), FINDING, tmp_path)
    memory = read_memory(tmp_path)
    assert [one.level for one in recall(Case(environment("base==2.0", "tool==1.0")), memory)] == ["warning"]
    assert (
        recall(Case(environment("base==2.0", "tool==1.5")), memory)
        == recall(Case(Environment("the text")), memory)
        == ()
    )


def test_known_good_sets(tmp_path):
    where, checked = "linux-x86_64, Python 3.11.7", "imports"
    remember_set("tuning on a T4", ("torch==2.6.0", "peft==0.13.2"), where, checked, tmp_path)
    again = remember_set("tuning on a T4", ("peft==0.13.2", "torch==2.6.0"), where, checked, tmp_path)
    assert again.times == 2
    remember_set("serving", ("vllm==0.9.0",), "linux-x86_64, Python 3.12.1", "imports", tmp_path)
    memory = read_memory(tmp_path)
    assert [one.name for one in known_good(memory)] == ["tuning on a T4", "serving"]
    assert [one.name for one in known_good(memory, ("VLLM",))] == ["serving"]
    assert known_good(memory, platform="macosx") == () and recall(Case(environment("vllm==0.9.0")), memory) == ()


def test_the_index_stays_short_and_nothing_is_lost(tmp_path):
    facts = [fact(number) for number in range(400)]
    with changing(tmp_path) as all_of_them:
        all_of_them += facts
    assert len(lines(tmp_path)) <= MOST_LINES and "- [p3](p3.md): " in (tmp_path / INDEX).read_text()
    memory = read_memory(tmp_path)
    assert {one.id for one in memory.facts} == {one.id for one in facts} and memory.problems == ()
    newest = {read_line(one).date for one in lines(tmp_path) if one.startswith("- ") and " · " in one}
    older = [read_line(one).date for one in lines(tmp_path, "p1.md") if one.startswith("- ")]
    assert older and max(older) <= min(newest)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.md")}
    with changing(tmp_path):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.md")} == before
    with changing(tmp_path) as few:
        del few[5:]
    assert [path.name for path in tmp_path.glob("*.md")] == [INDEX] and len(read_memory(tmp_path).facts) == 5


def test_lines_by_hand_stay_and_broken_ones_are_told(tmp_path):
    remember(proof(), FINDING, tmp_path, "2026-11-28")
    index = tmp_path / INDEX
    good = next(one for one in lines(tmp_path) if one.startswith("- "))
    by_hand = good.replace("base==2.0", "base==2.5").split(" · ", 1)[1]
    more = f"- {by_hand}\n- fails: x · proved: soon\n- 1234567890 · odd: 1\nA word of ours."
    index.write_text(
        index.read_text().replace(good, f"{good}\n{more}")
        + "<<<<<<< mine\n- "
        + good[2:]
        + "\n=======\n>>>>>>> theirs\n"
    )
    memory = read_memory(tmp_path)
    assert [one.packages[0] for one in memory.facts] == ["base==2.0", "base==2.5"]
    told = [str(one) for one in memory.problems]
    assert told[0].startswith("MEMORY.md:10: it does not say when it was proved")
    assert told[1].startswith("MEMORY.md:11: 'odd: 1' is no part")
    assert sum("merge conflict" in one for one in told) == 3
    remember(proof(RAISE), FINDING, tmp_path)
    text = index.read_text()
    assert "A word of ours." in text and "- fails: x · proved: soon" in text and "<<<<" not in text
    assert len(read_memory(tmp_path).facts) == 3
    (tmp_path / "README.md").write_text("# Ours\n- a list\n")
    remember(proof(), FINDING, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Ours\n- a list\n"


def test_credentials_never_get_in(tmp_path):
    change = Change("environment", "Set.", environment=(("HF_TOKEN", "hf_abcdefghijABCDEFGHIJ1234"),))
    remember(proof(change, error="OSError: https://jo:pw12345@example.org/simple"), FINDING, tmp_path)
    text = (tmp_path / INDEX).read_text()
    assert "hf_abc" not in text and "pw12345" not in text and len(read_memory(tmp_path).facts) == 1


@pytest.mark.parametrize(
    "change",
    [Change("pin", "", requirements=("a[x]<2, >=1", "b==1")), Change("uninstall", "", remove=("a",)),
     Change("pin", "", requirements=("a<2",), remove=("a-fork",), environment=(("A", "1"), ("B", "")))],
)  # fmt: skip
def test_a_change_as_text_and_back(change):
    text = written_change(change)
    back = read_change(text)
    assert written_change(back) == text
    assert (back.remove, back.environment) == (change.remove, change.environment)
    assert back.requirements == tuple(one.replace(", ", ",") for one in change.requirements)


@pytest.mark.parametrize(
    "given",
    [fact(1), fact(2, struck="2026-02-01", why="no · ~~x~~"), fact(3, log="0123456789abcdef", seconds=2.5, times=7)],
)
def test_a_line_and_back(given):
    assert written(read_line(written(given))) == written(given) and read_line(written(given)).id == given.id
    with pytest.raises(BadLine):
        read_line(written(given).replace("on: ", "in: "))


def test_two_peoples_lines_merge(tmp_path):
    def git(*words, at=tmp_path):
        words = ("git", "-c", "user.name=x", "-c", "user.email=x@x", *words)
        return subprocess.run(words, cwd=at, check=True, capture_output=True)

    with changing(tmp_path) as facts:
        facts.append(fact(1))
    git("init", "-q", "-b", "main")
    for branch, number in (("mine", 2), ("theirs", 3)):
        git("add", "-A")
        git("commit", "-q", "-m", "x", "--allow-empty")
        git("checkout", "-q", "-b", branch, "main")
        with changing(tmp_path) as facts:
            facts.append(fact(number))
            facts[0] = replace(facts[0], times=number)
    git("commit", "-aqm", "x")
    git("merge", "-q", "mine")
    memory = read_memory(tmp_path)
    assert {one.error[-1]: one.times for one in memory.facts} == {"1": 3, "2": 1, "3": 1}
    assert memory.problems == () and (tmp_path / ".gitignore").read_text() == ".lock\n"


def add(folder, begin):
    for number in range(begin, begin + 5):
        with changing(Path(folder)) as facts:
            facts.append(fact(number))


def test_several_write_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add, args=(str(tmp_path), begin)) for begin in (0, 100, 200)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(read_memory(tmp_path).facts) == 15
