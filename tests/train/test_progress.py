"""What a person at a terminal sees: the bar stays at the bottom, log lines go above it."""

import os
import pty
import subprocess
import sys

import pytest

from train.loop.record import RunRecord


def run_in_terminal(project, *words: str) -> str:
    """Run the command line in a pseudo-terminal and return what it wrote."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=project.path, stdout=theirs, stderr=theirs, close_fds=True,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux reports the end of a pseudo-terminal this way
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, written.decode()
    return written.decode()


def test_bar_and_log_lines_share_a_terminal(shared_project):
    written = run_in_terminal(shared_project, "FeatureFusion", "epochs=5")
    assert "Training:" in written and "20/20" in written, "the bar reaches its total"
    assert "loss=" in written
    # A log line never starts behind a bar: the bar is wiped or ended first.
    for line in written.replace("\r\n", "\n").split("\n"):
        visible = line.split("\r")[-1].removeprefix("\x1b[A")
        assert not ("batch/s" in visible and "INFO" in visible), repr(line)
    assert written.rstrip().splitlines()[-1].find("results are in") > 0


@pytest.mark.gpu
def test_cuda_trains_and_resumes(shared_project):
    words = ("FeatureFusion", "device=cuda")
    assert shared_project.run(*words, "epochs=2").returncode == 0
    done = shared_project.run(*words, "epochs=4", "--resume")
    assert done.returncode == 0, done.stderr
    assert "device cuda" in done.stdout


def test_an_epoch_that_was_gone_on_with_is_no_whole_one_for_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("train.loop.record.time.monotonic", lambda: now[0])
    record = RunRecord()
    record.progress.epoch, record.progress.step = 3, 34  # ten steps an epoch: four of the fourth are done
    record.start_clock()
    now[0] += 6.0  # a second for each of its other six
    record.progress.epoch, record.progress.step = 4, 40
    assert record.epoch_line(10).endswith("; up to 1m00s left")  # six epochs of ten steps
