"""What happens after the answer: the proof is told and remembered, pins are written, memory comes first next time."""

import pytest
from doctor_program import here
from patients import Patient

from doctor.commands import proving
from doctor.finding import Change
from doctor.proof.outcome import DISPROVED, NOT_TRIED, PROVED, Outcome, Proof, Trial

TEXT = (
    'openai==1.54.5\nhttpx==0.28.1\nTraceback (most recent call last):\n  File "a.py", line 2, in <module>\n'
    "TypeError: Client.__init__() got an unexpected keyword argument 'proxies'\n"
)
BEFORE = Outcome(False, 1, ("TypeError: Client.__init__() got an unexpected keyword argument 'proxies'",))
RAISE = Change("pin", "Raise openai.", ("openai>=1.55.3",))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A folder with a traceback; the proof that is asked for, which a test sets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.txt").write_text(TEXT)
    given = {}

    def prove(finding, case, knowledge, *, consent):
        given["mode"], given["finding"] = consent.mode, finding
        return given["proof"]

    monkeypatch.setattr(proving, "prove_finding", prove)
    return given


def test_what_is_proved_comes_first_and_is_told_first_next_time(asked, capfd):
    after = Outcome(True, 0)
    asked["proof"] = Proof(PROVED, "It failed, and passes with openai>=1.55.3.", RAISE, BEFORE, after,
                           ("openai==1.54.5", "httpx==0.28.1"), ("openai==1.99.0", "httpx==0.28.1"),
                           trials=(Trial(RAISE, after),), folder="logs/1", seconds=3.25,
                           platform="linux-x86_64, Python 3.11")  # fmt: skip
    answer = here(capfd, "--traceback", "e.txt", "--proof", "always", "--memory", "mem", "--json")
    first = answer.json["findings"][0]["changes"][0]
    assert asked["mode"] == "always" and first["requirements"] == ["openai>=1.55.3"]
    assert first["proof"] == {"result": "proved", "text": "It failed, and passes with openai>=1.55.3.", "log": "logs/1",
                              "seconds": 3.2, "resolved": ["openai==1.99.0", "httpx==0.28.1"]}  # fmt: skip
    again = here(capfd, "--traceback", "e.txt", "--memory", "mem", "--json").json["findings"][0]
    assert again["changes"][0]["requirements"] == ["openai>=1.55.3"] and again["remembered"][0].startswith("Proved on ")
    shown = here(capfd, "memory", "--memory", "mem", "openai")
    assert shown.code == 0 and "mended by openai>=1.55.3" in shown.out
    fact = here(capfd, "memory", "show", "--memory", "mem", "--json").json["facts"][0]
    struck = here(capfd, "memory", "forget", fact["id"], "--why", "broke the rest", "--memory", "mem")
    assert struck.code == 0 and "broke the rest" in struck.out
    assert not here(capfd, "--traceback", "e.txt", "--memory", "mem", "--json").json["findings"][0]["remembered"]


def test_without_a_terminal_nothing_is_tried_unless_asked_for(asked, capfd):
    asked["proof"] = Proof(NOT_TRIED, "Nobody is there to be asked.")
    here(capfd, "--traceback", "e.txt")
    assert "mode" not in asked
    told = here(capfd, "--traceback", "e.txt", "--proof", "ask")
    assert asked["mode"] == "ask" and "not tried. Nobody is there to be asked." in " ".join(told.out.split())
    asked["proof"] = Proof(DISPROVED, "It fails with each of them.", before=BEFORE)
    assert "disproved" in here(capfd, "--traceback", "e.txt", "--proof", "always", "--memory", "mem").out


def test_pins_are_written_after_they_were_shown_and_a_yes(asked, capfd, tmp_path, monkeypatch):
    path = tmp_path / "requirements.txt"
    path.write_text("# mine\npeft==0.14.0\ntransformers==4.40.2\n")
    refused = here(capfd, "requirements.txt", "--apply")
    assert path.read_text().startswith("# mine\npeft==0.14.0\n") and "nobody said yes" in refused.err
    assert "-peft==0.14.0" in refused.err and "+peft<0.14" in refused.err
    monkeypatch.setattr(proving, "confirmed", lambda question: True)
    done = here(capfd, "requirements.txt", "--apply")
    assert done.code == 1 and "is written" in done.err
    assert "peft<0.14" in path.read_text() and path.read_text().startswith("# mine\n")
    assert here(capfd, "requirements.txt", "--apply").code == 0
    (tmp_path / "uv.lock").write_text('version = 1\n[[package]]\nname = "peft"\nversion = "0.14.0"\n\n'
                                      '[[package]]\nname = "transformers"\nversion = "4.40.2"\n')  # fmt: skip
    assert "not written into uv.lock" in here(capfd, "uv.lock", "--apply").err


def test_the_memorys_own_mistakes(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here(capfd, "memory", "--memory", "none").out.startswith("Nothing was proved yet")
    assert here(capfd, "memory", "path", "--memory", "none").out == "none\n"
    assert here(capfd, "memory", "forget", "--memory", "none").code == 2
    assert "there is no fact 123" in here(capfd, "memory", "forget", "123", "--memory", "none").err
    (tmp_path / "mem").mkdir()
    (tmp_path / "mem" / "MEMORY.md").write_text("- odd line of a fact\n")
    answer = here(capfd, "memory", "--memory", "mem")
    assert answer.code == 1 and "MEMORY.md:1" in answer.err


def test_a_set_that_passed_its_smoke_test_is_remembered_and_planned_with(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patient = Patient(tmp_path / "v")
    patient.install("trl", "1.16.0")
    answer = here(capfd, "smoke", "--python", "v", "--remember", "tuning", "--memory", "mem")
    assert answer.code == 0 and "good for tuning" in answer.err
    told = here(capfd, "plan", "trl on an L4", "--memory", "mem", "--json").json
    assert told["remembered"][0].startswith("tuning: trl==1.16.0 (linux-")
    assert "Known good from the doctor's memory" in here(capfd, "plan", "trl on an L4", "--memory", "mem").out
    assert here(capfd, "plan", "vllm on an L4", "--memory", "mem", "--json").json["remembered"] == []
