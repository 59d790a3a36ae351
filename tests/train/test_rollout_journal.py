"""Rollouts of a killed run: those that have ended are kept, the others made again, and all bits are the same."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

from llm.sample_result import RecalledSample
from llm.sampling_settings import SampleRequest, SamplingSettings
from service.sampling.sampling_loop import Ticket
from train.agents.played import FAILED
from train.agents.rollout import Rollout, SampledRow
from train.agents.rollout_journal import Attempt, JournalAnswer, RolloutJournal, remove_journals
from train.agents.waves import Waves

AGENT = '''
import os, signal

def tasks(split):
    return [{"ask": f"{split} {number}", "number": number} for number in range(4)]

def mark(word, task):
    with open("calls.txt", "a") as stream:
        stream.write(f"{word} {task['ask']}\\n")

def kill_if_due(task):
    """Where the run is to be killed: when so many rollouts of a split have come to their end."""
    split, _, count = os.environ.get("KILL_AT", "").partition(" ")
    if split and open("calls.txt").read().count(f"end {split}") >= int(count):
        pid = os.getpid()
        if os.environ.get("KILL_IN") == "processes":  # whoever started who forked this one
            pid = int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1])
        os.kill(pid, signal.SIGKILL)

def play(task, client):
    """One to four turns, each with more to read; some answers end sooner than others."""
    mark("begin", task)
    messages, said = [{"role": "user", "content": task["ask"]}], ""
    for turn in range(1 + task["number"]):
        answer = client.chat.completions.create(
            model="m", messages=messages, max_tokens=2 + 3 * task["number"], stop=["e"]
        )
        said += answer.choices[0].message.content
        messages += [answer.choices[0].message.to_dict(), {"role": "user", "content": f"go on {turn} " * 8}]
    mark("end", task)
    kill_if_due(task)
    return sum(character.islower() for character in said)
'''
WORDS = (
    "agent=journaled.py:play", "base_model=tiny", "plot_at_end=off", "sample_count=1", "lora_targets=attention",
    "lora_rank=4", "tasks_per_epoch=4", "group_size=5", "parallel_rollouts=3", "epochs=2", "learning_rate=0.01",
    "validate_every_n_epochs=1", "val_samples=2", "saving_share=0.0001", "rollouts_in=threads",
)  # fmt: skip


def with_words(*others: str) -> list[str]:
    """Return the words of a run, some of which have other values."""
    return [f"{name}={value}" for name, value in dict(word.split("=", 1) for word in (*WORDS, *others)).items()]


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "journaled.py").write_text(AGENT)
    return shared_project


def numbers_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "checkpoints").iterdir())[-1] / "weights.safetensors")


@pytest.fixture(scope="module")
def whole(lab):
    """A run that nothing interrupts."""
    (lab.path / "calls.txt").unlink(missing_ok=True)
    done = lab.run("Agent", *WORDS)
    assert done.returncode == 0, done.stderr
    assert (lab.path / "calls.txt").read_text().count("begin train") == 2 * 20
    folder = lab.runs("Agent")[-1]
    assert not (folder / "rollouts").exists(), "nothing is left of a run that has ended"
    return folder


@pytest.mark.parametrize(
    ("kills", "where"),
    [
        pytest.param(("train 27", "train 34"), "threads", marks=pytest.mark.slow),
        pytest.param(("val 6",), "threads", marks=pytest.mark.slow),
        (("train 13",), "processes"),
    ],
)
def test_a_killed_run_keeps_the_rollouts_that_have_ended_and_comes_to_the_same_bits(lab, whole, kills, where):
    """Also where it is killed twice in the same batch of rollouts, and while it validates; wherever agents play."""
    calls = lab.path / "calls.txt"
    calls.unlink(missing_ok=True)
    words, lanes = with_words(f"rollouts_in={where}"), 3
    for kill in kills:
        killed = lab.run("Agent", *words, KILL_AT=kill, KILL_IN=where)
        assert killed.returncode == -9, killed.stderr
        folder, words = lab.runs("Agent")[-1], ["--resume"]
    assert list((folder / "rollouts").glob("*.journal"))
    done = lab.run("Agent", "--resume")
    assert done.returncode == 0, done.stderr
    expected, found = numbers_of(whole), numbers_of(folder)
    assert found["history"] == expected["history"] and found["summary"]["change"] == expected["summary"]["change"]
    one, other = weights_of(whole), weights_of(folder)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    for split, planned in (("train", 2 * 20), ("val", 4 * 8)):  # two validations, and before and after
        begun = calls.read_text().count(f"begin {split}")
        assert planned <= begun <= planned + lanes * len(kills), f"{split}: only those under way are made again"
    told = done.stderr + done.stdout
    assert "came out otherwise" not in told and "were made before the run was interrupted, and are kept" in told


def test_without_waves_all_answers_of_a_killed_run_are_kept(lab):
    calls = lab.path / "calls.txt"
    calls.unlink(missing_ok=True)
    killed = lab.run("Agent", *with_words("lockstep=off", "epochs=1"), KILL_AT="train 13")
    assert killed.returncode == -9, killed.stderr
    done = lab.run("Agent", "--resume")
    assert done.returncode == 0, done.stderr
    assert calls.read_text().count("begin train") <= 20 + 3
    assert numbers_of(lab.runs("Agent")[-1])["history"]["train_failed"] == [0.0]


def test_another_agent_begins_its_rollouts_anew(lab):
    """What another agent did is no rollout of this one."""
    killed = lab.run("Agent", *with_words("epochs=1"), KILL_AT="train 13")
    assert killed.returncode == -9, killed.stderr
    source = lab.path / "journaled.py"
    source.write_text(AGENT.replace("return sum(", "return 100 + sum("))
    try:
        done = lab.run("Agent", "--resume")
    finally:
        source.write_text(AGENT)
    assert done.returncode == 0, done.stderr
    assert min(numbers_of(lab.runs("Agent")[-1])["history"]["train_reward"]) > 100


# ----------------------------------------------------------------------------------------------------- the file itself


def answer(number: int, wave: int | None, prompt: list[int], said: list[int], **settings) -> JournalAnswer:
    request = SampleRequest(prompt, SamplingSettings(**settings))
    sample = RecalledSample(tuple(said), tuple(-0.1 * token for token in said), "stop", said[-1])
    return JournalAnswer(number, wave, "v1", request, (sample,))


ROLLOUT = Rollout(
    3, 1, FAILED, None, {"used": 2.0}, "x.py:1",
    [SampledRow(torch.tensor([1, 2], dtype=torch.int32), torch.tensor([0, 1]) > 0, torch.tensor([0.0, -0.3]), ("v",))],
    turns=1, tokens=1, remarks=["odd"], retries=2,
)  # fmt: skip


def test_a_journal_knows_what_was_written_and_what_has_to_be_sampled_again(tmp_path):
    path, facts = tmp_path / "x.journal", {"version": "v1"}
    first = answer(0, 0, [1, 2, 3], [7, 8], stop=("x", 5), logit_bias=((4, 1.5),), seed=9)
    ended, opened = Attempt(0), Attempt(1, 2)
    with RolloutJournal(path, facts) as journal:
        journal.note_answer(ended, first)
        journal.note_answer(opened, first)
        journal.note_clean(1)
        for attempt in (ended, opened):
            journal.note_answer(attempt, answer(1, 1, [1, 2, 3, 7, 8, 4], [6]))
        journal.note_end(Attempt(2), None)
        journal.note_end(ended, ROLLOUT)
    for _ in range(2):  # whoever goes on and is killed again has lost nothing
        with RolloutJournal(path, facts) as again:
            assert again.first_wave == 1 and again.attempts == {2: 1}
            assert again.known(opened, 0, first.request) == first
            assert again.known(opened, 1, answer(1, 1, [1, 2, 3, 7, 8, 4], [6]).request) is None, "it is sampled again"
            ((attempt, late),) = again.again
            assert attempt == ended and late == answer(1, 1, [1, 2, 3, 7, 8, 4], [6])
            again.note_clean(1)  # as whoever goes on begins
            kept = again.finished[0]
            assert {**vars(kept), "rows": 0} == {**vars(ROLLOUT), "rows": 0}
            for name in ("ids", "sampled", "logprobs"):
                assert torch.equal(getattr(kept.rows[0], name), getattr(ROLLOUT.rows[0], name))
    with RolloutJournal(path, facts) as again:
        assert again.known(opened, 0, SampleRequest([1, 2, 3])) is None, "it is another request"
    with RolloutJournal(path, {"version": "v2"}) as other:
        assert other.finished == {} and other.first_wave == 0


def test_half_a_record_at_the_end_is_cut_and_damage_is_told(tmp_path, caplog):
    path, facts = tmp_path / "x.journal", {"version": "v1"}
    with RolloutJournal(path, facts) as journal:
        journal.note_end(Attempt(0), ROLLOUT)
        first = path.stat().st_size
        journal.note_end(Attempt(1), ROLLOUT)
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, first, -37):
        path.write_bytes(whole[:cut])
        with RolloutJournal(path, facts) as journal:
            assert 0 in journal.finished
            journal.note_end(Attempt(2), ROLLOUT)
        with RolloutJournal(path, facts) as journal:
            assert {0, 2} <= journal.finished.keys()
    path.write_bytes(whole[:60] + b"?" + whole[61:])
    with RolloutJournal(path, facts) as journal:
        assert journal.finished == {} and "rollouts that were made before are made again" in caplog.text


def test_a_journal_that_can_not_be_written_is_told_once(tmp_path, caplog):
    with RolloutJournal(tmp_path / "nowhere" / "x.journal", {}) as journal:
        journal.note_end(Attempt(0), ROLLOUT)
    assert caplog.text.count("can't be written") == 1 and journal.finished.keys() == {0}


def test_journals_that_nobody_asks_for_are_removed(tmp_path):
    for name in ("a.journal", "b.journal", "c.txt"):
        (tmp_path / name).touch()
    remove_journals(tmp_path, [tmp_path / "b.journal"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.journal", "c.txt"]
    remove_journals(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------------------ waves


def ticket(key: str, number: int, prompt: list[int]) -> Ticket:
    return Ticket(key, number, "m", SampleRequest(prompt), False, None)


def test_waves_begin_clean_where_little_is_read_again():
    """Other prompts each time: each wave. One that grows by a token a turn: none, once it is long."""
    begun, cleared = [], []

    def waves_of(prompts: list[list[int]]) -> list[int]:
        begun.clear(), cleared.clear()
        waves = Waves(lambda: cleared.append(1), begun.append, 5)
        waves.enter("00000")
        for number, prompt in enumerate(prompts):
            assert waves.due([ticket("00000", number, prompt)], 0) == [0]
        assert len(cleared) == len(begun)
        return list(begun)

    assert waves_of([[number] * 20 for number in range(4)]) == [5, 6, 7, 8]
    assert waves_of([list(range(100 + number)) for number in range(20)]) == [5]
    assert waves_of([list(range(100)), list(range(110)), [7] * 100]) == [5, 7]
