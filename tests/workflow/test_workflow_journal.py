"""What the journal and the files say of each step."""

import pytest

from workflow.definition.reading import read_definition
from workflow.journal.digests import Digests
from workflow.journal.journal import Journal, JournalError
from workflow.journal.state import inputs_of, outputs_of, request_digest, states_of

WORKFLOW = """schema: 1
name: chain
title: Three steps
preset: small
presets: {small: {n: 3}, large: {n: 30}}
steps:
  - {number: 1, name: make, title: Making, category: data, command: "make {n}", needs: {files: [in.txt]},
     produces: [a.txt]}
  - {number: 2, name: use, title: Using, category: data, command: use, needs: {steps: [1], files: [a.txt]},
     produces: [b]}
  - {number: 3, name: look, title: Looking, category: end, person: true, needs: {steps: [2]}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "in.txt").write_text("in")
    return tmp_path


def states(project, preset: str = "small", running: bool = False) -> dict[int, tuple[str, str]]:
    definition = read_definition(project / "workflow.yaml")
    found = states_of(definition, preset, Journal(project).read(), Digests(project), running)
    return {each.step.number: (each.state, each.reason) for each in found}


def finish(project, number: int, preset: str = "small") -> None:
    definition = read_definition(project / "workflow.yaml")
    step, settings, digests = definition.step(number), definition.presets[preset], Digests(project)
    with Journal(project).held() as journal:
        facts = {"request": request_digest(step, settings), "inputs": inputs_of(step, settings, digests)}
        journal.append("started", number)
        journal.append("done", number, {**facts, "outputs": outputs_of(step, settings, digests)})


def test_steps_go_from_blocked_to_done_and_are_stale_when_what_they_were_made_from_changes(project):
    assert states(project) == {
        1: ("ready", ""), 2: ("blocked", "needs step 1"), 3: ("blocked", "needs step 2"),
    }  # fmt: skip
    (project / "a.txt").write_text("a")
    finish(project, 1)
    assert states(project)[1] == ("done", "") and states(project)[2] == ("ready", "")
    (project / "b").mkdir()
    (project / "b" / "x").write_text("x")
    finish(project, 2)
    assert states(project)[3] == ("waiting", "")
    finish(project, 3)
    assert {state for state, _ in states(project).values()} == {"done"}

    (project / "a.txt").write_text("b")  # what the first made is no input of its own
    assert states(project)[1] == ("done", "")
    assert states(project)[2] == ("stale", "a.txt has changed") and states(project)[3] == ("stale", "step 2 is stale")
    (project / "a.txt").write_text("a")
    assert states(project)[2] == ("done", ""), "the same bytes are the same input"
    (project / "in.txt").write_text("other")
    assert states(project)[1] == ("stale", "in.txt has changed")
    (project / "in.txt").write_text("in")
    assert states(project, "large")[1] == ("stale", "its command, checks or settings have changed")
    finish(project, 1)
    assert states(project)[2] == ("stale", "step 1 was done again after it")
    (project / "b" / "x").unlink()
    (project / "b").rmdir()
    finish(project, 1)
    assert states(project)[2] == ("stale", "b, which it made, is gone")


def test_a_kill_leaves_a_step_stopped_and_a_torn_line_is_no_event(project):
    with Journal(project).held() as journal:
        journal.append("started", 1, {"pid": 7})
        assert states(project, running=journal.is_held())[1] == ("running", "")
    assert states(project)[1] == ("stopped", "it was killed")
    file = project / ".workflow" / "journal.jsonl"
    with file.open("a") as stream:
        stream.write('{"kind": "done", "st')
    assert [event.kind for event in Journal(project).read()] == ["started"]
    with Journal(project).held() as journal:
        journal.append("failed", 1, {"code": 1, "text": "no memory"})
    assert [event.kind for event in Journal(project).read()] == ["started", "failed"]
    assert states(project)[1] == ("failed", "no memory")


def test_one_process_at_a_time(project):
    with Journal(project).held(), pytest.raises(JournalError, match="being run by another process"):
        Journal(project).held()
    Journal(project).held().close()


def test_a_journal_of_others_is_refused_with_its_line(project):
    with Journal(project).held() as journal:
        journal.append("started", 1)
    file = project / ".workflow" / "journal.jsonl"
    file.write_text(file.read_text() + "garbage\n")
    with pytest.raises(JournalError, match=r"journal\.jsonl:2: no line of this program"):
        Journal(project).read()


def test_files_that_are_not_there_block(project):
    (project / "in.txt").unlink()
    assert states(project)[1] == ("blocked", "in.txt is not there")
