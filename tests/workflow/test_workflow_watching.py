"""What a running step is seen to do: its pace, its losses, and when it is in trouble."""

import pytest

from constants.time_spans import span
from workflow.definition.facts import Step, Watch
from workflow.running.screen import Screen
from workflow.watching.followed_file import FollowedFile
from workflow.watching.progress import Progress
from workflow.watching.trouble import Watcher


@pytest.mark.parametrize(
    ("line", "done", "total", "loss"),
    [
        ("step 10/1000 loss 1.234", 10, 1000, 1.234),
        ("Step: 1,250 of 5,000 | train_loss=2.5e-1", 1250, 5000, 0.25),
        (" 5%|##        | 25/500 [00:10<03:20,  2.4it/s, loss=3.1]", 25, 500, 3.1),
        ("{'loss': 2.75, 'learning_rate': 1e-4, 'epoch': 0.1}", None, None, 2.75),
        ('{"step": 7, "loss": 1.5, "total": 9}', 7, 9, 1.5),
        ("examples 3/4", 3, 4, None),
        ("loss: nan", None, None, float("nan")),
        ("lossless 5/3 of it", None, None, None),
        ("wrote 12/2025 of the log", None, None, None),
        ("step 12/5", None, None, None),
    ],
)
def test_a_line_is_read(line, done, total, loss):
    progress = Progress()
    progress.begin(0)
    progress.take_line(line, 1)
    assert (progress.done, progress.total) == (done, total)
    assert progress.loss == pytest.approx(loss, nan_ok=True) if loss is not None else progress.loss is None


def test_the_rest_is_told_by_the_pace_since_it_began():
    """A step that goes on at 100 has not made these now."""
    progress = Progress()
    progress.begin(0)
    progress.take_event({"done": 100, "total": 300, "unit": "examples", "dollars": 0.5}, 10)
    assert progress.seconds_left(10) is None
    progress.take_event({"done": 150, "total": 300, "dollars": 1.2}, 60)
    assert progress.seconds_left(60) == pytest.approx(150)
    progress.spent = 1.2
    line = Screen(20).line(Step(8, "generate", "Generating teacher data", "data"), progress, 60)
    assert line == "[Step 8/20] Generating teacher data  150/300 (50 %)  2 min left  $1.20 so far"
    assert (span(40), span(2700), span(12600)) == ("40 s", "45 min", "3 h 30 min")


def test_what_is_no_event_is_passed_over():
    progress = Progress()
    progress.begin(0)
    progress.take_event({"done": "many", "loss": None, "dollars": "inf", "total": True, "unit": 3}, 1)
    assert (progress.done, progress.total, progress.loss, progress.counts) == (None, None, None, {})


def watched(losses: list[float], watch: Watch, tmp_path) -> list[str]:
    progress, watcher = Progress(), Watcher(watch, tmp_path)
    progress.begin(0)
    said = []
    for step, loss in enumerate(losses, 1):
        progress.take_event({"done": step, "loss": loss}, step)
        trouble = watcher.look(progress, step)
        said += [trouble.text] if trouble is not None and trouble.stops else []
    return said


def test_losses_that_explode_stop_a_step_and_peaks_do_not(tmp_path):
    watch = Watch(loss=True, explosion=10)
    falling = [3.0 * 0.9**n for n in range(30)]
    assert watched(falling, watch, tmp_path) == []
    assert watched([*falling, 50.0, 0.2, 60.0, 0.2], watch, tmp_path) == []
    assert watched([*falling, 50.0, 50.0, 50.0], watch, tmp_path) == [
        "the loss is 50 at step 33, 10 times its best, 0.1413"
    ]
    assert watched([*falling, float("nan")], watch, tmp_path) == ["the loss is nan at step 31"]
    assert watched([*falling, float("nan")], Watch(loss=False), tmp_path) == []


def test_a_stall_is_told_once_and_stops_a_step_in_the_end(tmp_path):
    progress, watcher = Progress(), Watcher(Watch(stall=5), tmp_path)
    progress.begin(0)
    for step in range(10):
        progress.take_event({"done": step}, 30.0 * step)
    said = [watcher.look(progress, now) for now in range(270, 900, 10)]
    told = [one for one in said if one is not None]
    assert told[0].text == "nothing has moved for 150 s; it usually moves every 30 s" and not told[0].stops
    assert told[1].stops and told[1].text.startswith("nothing has moved for 610 s")
    quick = Progress()
    quick.begin(0)
    for step in range(10):
        quick.take_event({"done": step}, 0.1 * step)
    assert Watcher(Watch(stall=5), tmp_path).look(quick, 50) is None, "a minute's silence is nothing"


def test_what_comes_in_bursts_is_given_as_long_as_it_took_before(tmp_path):
    progress, watcher = Progress(), Watcher(Watch(stall=5), tmp_path)
    progress.begin(0)
    for answer in range(8):  # a batch whose answers come together, after five minutes
        progress.take_event({"done": answer}, 300 + 0.1 * answer)
    assert [watcher.look(progress, now) for now in range(310, 600, 10)] == [None] * 29
    assert watcher.look(progress, 610) is not None


def test_a_file_is_followed_by_whole_lines(tmp_path):
    file = tmp_path / "log"
    followed = FollowedFile(file)
    assert followed.lines() == []
    file.write_bytes(b"one\ntw")
    assert followed.lines() == ["one"]
    with file.open("ab") as stream:
        stream.write(b"o\r 5%\r\xff\n")
    assert followed.lines() == ["two", " 5%", "\ufffd"]
