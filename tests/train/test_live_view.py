"""What is shown while rollouts are made, and which of them are kept to be read."""

import io
import sys

import pytest
import torch
from tqdm import tqdm

from evaluation.report.agents_part import shade_of, transcripts_part
from storage.agent_transcripts import TRANSCRIPTS, Passage, Transcript, read_transcripts
from train.agents.credit import Credit, CreditSettings
from train.agents.kept_transcripts import keep_transcripts, transcripts_of
from train.agents.live_view import LiveView, live_pieces, share_with_variance, sparkline, tendency
from train.agents.played import FAILED
from train.agents.quiet import LONGEST, AgentOutput
from train.agents.rollout import Rollout, SampledRow
from train.agents.rollout_summary import in_line
from train.loop.progress import ProgressBar


def rollout(task: int, sample: int, reward: float | None, said: tuple[int, ...] = (7, 8), **more) -> Rollout:
    ids = torch.tensor([1, 2, *said, 3, 9], dtype=torch.int32)
    sampled = torch.tensor([False, False, *[True] * len(said), False, True])
    row = SampledRow(ids, sampled, torch.where(sampled, -0.5, 0.0))
    return Rollout(task, sample, reward=reward, rows=[row], turns=2, tokens=len(said) + 1, **more)


SOME = [rollout(0, 0, 1.0), rollout(0, 1, 0.0), rollout(1, 0, 0.5), rollout(1, 1, 0.5),
        rollout(2, 0, None, outcome=FAILED, told="x.py:1: KeyError")]  # fmt: skip
PLAIN = Credit(CreditSettings(group_size=2))


class Words:
    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def test_numbers_of_the_rollouts_that_are_done():
    assert live_pieces([], 1.0) == []
    assert live_pieces(SOME, 1.0, {"train_kl": [0.1, 0.25]}) == [
        "reward 0.5 ± 0", "success 25%", "turns 2", "tokens 3", "entropy 0.5", "train_kl 0.25",
        "groups with variance 50%", "failed 20%",
    ]  # fmt: skip
    assert share_with_variance(SOME[:1]) is None
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█" and sparkline([2.0, 2.0]) == "▁▁"
    assert len(sparkline(list(range(1000)))) <= 24
    assert tendency({"train_reward": [0.1, float("nan"), 0.9], "val_reward": [0.2]}) == ["train_reward ▁█ 0.1 -> 0.9"]


def test_off_a_terminal_a_line_comes_every_minute(caplog):
    caplog.set_level("INFO")
    times = iter([0.0, 0.5, 30.0, 61.0, 90.0, 125.0])
    view = LiveView(ProgressBar(10, "x"), "epoch 3", 8, {}, 1.0, clock=lambda: next(times))
    for _ in range(5):
        view.look(SOME)
    view.close()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and lines[0].startswith("epoch 3: 5 of 8 rollouts in 1m01s, reward 0.5 ± 0, success 25%")


def test_the_bar_gives_way_to_a_line_of_the_log_also_while_agents_print_to_their_file(monkeypatch, tmp_path):
    """Else the line would begin behind the bar."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    terminal, bar = sys.stdout, tqdm(total=3, desc="Training", ncols=40, file=sys.stderr)
    with AgentOutput(tmp_path / "printed.txt").taken():
        tqdm.write("a line", file=terminal)
        cleared = sys.stderr.getvalue()
    bar.close()
    assert f"\r{' ' * 40}\r" in cleared, "the bar was taken away before the line"


def test_of_prints_without_end_the_last_are_kept(tmp_path):
    """An agent's process has the file open, from one batch of rollouts to the next."""
    with open(tmp_path / "printed.txt", "ab", buffering=0) as process:
        process.truncate(LONGEST)
        process.write(b"\nlast\n")
        with AgentOutput(tmp_path / "printed.txt").taken():
            process.write(b"next\n")
    kept = (tmp_path / "printed.txt").read_text()
    assert kept == "(what was printed before is left out: it was too much)\nlast\nnext\n"


def test_the_line_of_an_epoch_has_what_one_looks_at():
    assert in_line("train_reward", 0.0) and in_line("val_kl", 0.1) and in_line("train_failed", 0.1)
    assert not in_line("train_failed", 0.0) and not in_line("val_sampler_gap", 1e-7)


def test_the_best_and_the_worst_are_kept_of_the_first_epoch_and_the_last(tmp_path):
    path = tmp_path / TRANSCRIPTS
    for epoch in (1, 2, 3):
        keep_transcripts(path, transcripts_of(SOME, epoch, PLAIN, Words(), 1))
    found = read_transcripts(tmp_path)
    assert [(each.epoch, each.task, each.sample, each.reward, each.advantage) for each in found] == [
        (epoch, *rest)
        for epoch in (1, 3)
        for rest in ((1, 1, 1.0, pytest.approx(0.5)), (1, 2, 0.0, pytest.approx(-0.5)), (3, 1, None, None))
    ]
    read, said = Passage("1 2", False), Passage("7 8", True)
    assert list(found[0].rows) == [[read, said, Passage("3", False), Passage("9", True)]]
    assert transcripts_of(SOME, 1, PLAIN, Words(), 0) == []
    (long,) = transcripts_of([rollout(0, 0, 1.0, said=(7,) * 5000)], 1, PLAIN, Words(), 1)
    assert long.cut and len(long.rows[0][1].text.split()) < 4001
    (tmp_path / TRANSCRIPTS).write_text("[{")
    assert read_transcripts(tmp_path) == [] and transcripts_part(tmp_path) is None


def test_the_advantage_of_a_transcript_is_the_one_that_is_learned_from():
    """A right answer that is too long is worse than a wrong short one; what is cut off is not learned from."""
    some = [rollout(0, 0, 1.0, said=(7,) * 9), rollout(0, 1, 0.5), rollout(0, 2, 0.5, cut_off=1), rollout(0, 3, 0.0)]
    credit = Credit(CreditSettings(
        group_size=4, overlong_length=8, overlong_buffer=2, overlong_penalty=1.5, train_cut_off=False
    ))  # fmt: skip
    found = transcripts_of(some, 1, credit, Words(), 1)
    assert [(each.sample, each.reward, each.advantage) for each in found] == [(2, 0.5, 0.375), (1, 1.0, -0.625)]
    again = transcripts_of([some[2], some[3]], 1, credit, Words(), 1)
    assert [(each.sample, each.advantage) for each in again] == [(3, None), (4, -0.25)]


def test_a_report_colours_what_was_said_by_its_advantage(tmp_path):
    found = [
        Transcript(1, 1, 1, "done", 1.0, 0.6, rows=[[Passage("<b>read", False), Passage("said", True)]]),
        Transcript(1, 1, 2, "failed", None, None, told="x.py:1: KeyError"),
        Transcript(2, 1, 2, "done", 0.0, -0.1, rows=[[Passage("no", True)]], cut=True),
    ]
    keep_transcripts(tmp_path / TRANSCRIPTS, found[:2])
    keep_transcripts(tmp_path / TRANSCRIPTS, found[2:])
    shown = str(transcripts_part(tmp_path))
    assert '<mark class="said up3">said</mark>' in shown and '<mark class="said down1">no</mark>' in shown
    assert "<span>&lt;b&gt;read</span>" in shown and "task 1, rollout 1, reward 1, advantage +0.6" in shown
    assert "task 1, rollout 2, no reward, failed" in shown and "x.py:1: KeyError" in shown
    assert "<summary>Epoch 1</summary>" in shown and "Its end is left out." in shown
    assert [shade_of(value, 1.0) for value in (None, 0.0, 0.2, -0.5, 1.0)] == ["", "", "up1", "down2", "up3"]
