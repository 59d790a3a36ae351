"""Log lines: their form, their colours, what of them train.log has."""

import os
import pty
import re
import stat
from pathlib import Path

import pytest

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d (INFO|WARNING) .*")
_ONE = re.compile(
    r"\b1 (\w+ )?(epochs|steps|batches|samples|parameters|workers|validations|times|seconds|readings|runs|threads)\b"
)


def files_of(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


@pytest.fixture(scope="module")
def trained(shared_project):
    """A run of one epoch of one batch, and one of 40 epochs that are over in less than the second between two lines."""
    done = shared_project.run("FeatureFusion", "epochs=1", "batch_size=100", "plot_at_end=on", "num_workers=1")
    assert done.returncode == 0, done.stderr
    quick = shared_project.run("FeatureFusion", "epochs=40", "early_stopping_patience=0")
    assert quick.returncode == 0, quick.stderr
    return shared_project, done, quick


def test_a_line_has_the_time_in_iso_8601_and_no_name_and_no_escapes(trained):
    project, done, _ = trained
    log = (project.runs("FeatureFusion")[-2] / "train.log").read_text()
    for text in (done.stdout, log):
        assert len(text.splitlines()) > 5
        assert all(_LINE.fullmatch(line) for line in text.splitlines()), text
        assert " root " not in text and "\x1b" not in text


def test_train_log_has_every_epoch_and_the_screen_one_line_a_second(trained):
    project, _, quick = trained
    log = (project.runs("FeatureFusion")[-1] / "train.log").read_text()
    assert re.findall(r"INFO epoch (\d+)/40: ", log) == [str(epoch) for epoch in range(1, 41)]
    assert "epoch 40/40: " in quick.stdout


def test_one_is_not_several(trained):
    project, done, _ = trained
    run = project.runs("FeatureFusion")[-2]
    again = project.run("FeatureFusion", "--resume", run.name, "epochs=1", "batch_size=100", "plot_at_end=on")
    plan = project.run("FeatureFusion", "--dry-run", "epochs=1", "batch_size=100", "num_workers=1")
    assert "1 batch of 100 (DataLoader, 1 worker)" in plan.stdout
    assert "length: 1 epoch, 1 optimizer step each (1 in all), " in plan.stdout
    assert "the 1 epoch of this run is done" in again.stdout
    for told in (done, again, plan):
        assert told.returncode == 0, told.stderr
        assert not _ONE.search(told.stdout), told.stdout


@pytest.mark.parametrize(("mask", "files", "folders"), [(0o027, 0o640, 0o750), (0o002, 0o664, 0o775)])
def test_files_and_folders_of_a_run_have_the_umasks_mode(project, mask, files, folders):
    before = os.umask(mask)
    try:
        script = (
            f"import os, sys; os.umask({mask}); from commands.command_line import main;"
            "sys.exit(main(['FeatureFusion', 'epochs=1', 'plot_at_end=on']))"
        )
        (project.path / "masked.py").write_text(script)
        done = project.run(script="masked.py")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    found = files_of(project.path / "artifacts")
    assert {"metrics.json", "train.log", "weights.safetensors", "overview.png"} <= {path.name for path in found}
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (folders if path.is_dir() else files), path


def test_a_writer_that_hides_its_file_from_others_is_undone(tmp_path):
    """As safetensors' `save_file` does, which writes a temporary file of its own and moves it."""
    import torch
    from safetensors.torch import save_file

    from storage.files import write_atomically

    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", lambda path: save_file({"x": torch.zeros(2)}, path))
        write_atomically(tmp_path / "b", lambda path: (path.write_bytes(b"b"), path.chmod(0o600)))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o644, 0o644]


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(monkeypatch, terminal, environment, coloured):
    from storage import log_lines

    ours, theirs = pty.openpty()
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with os.fdopen(theirs, "w") if terminal else open(os.devnull, "w") as stream:
        monkeypatch.setattr(log_lines.sys, "stdout", stream)
        assert log_lines.wants_colours() is coloured
    os.close(ours)
