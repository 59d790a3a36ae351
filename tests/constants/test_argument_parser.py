"""Errors of usage: one line, and what was probably meant."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plot.py", "--run"), "there is no option --run; did you mean --runs? `python plot.py --help` shows all."),
        (
            ("plot.py",),
            "the following arguments are required: RUN (or --runs, which lists them). "
            "`python plot.py --help` shows all.",
        ),
        (
            ("recommend.py", "hebrew-4", "--top", "x"),
            "argument --top: 'x' must be a whole number of at least 1. `python recommend.py --help` shows all.",
        ),
        (
            ("recommend.py", "hebrew-4", "greek-2"),
            "'greek-2' is one word too many. `python recommend.py --help` shows all.",
        ),
        (
            ("train.py", "--new", "My", "--batch", "dic"),
            "argument --batch: 'dic' is none of tensor, dict, dataclass; did you mean dict? "
            "`python train.py --help` shows all.",
        ),
        (
            ("train.py", "ModelAutoEncoder", "--seeds", "0"),
            "argument --seeds: '0' is no number of seeds; a spread needs at least 2. "
            "`python train.py --help` shows all.",
        ),
        (
            ("menagerie.py", "tran"),
            "argument COMMAND: 'tran' is none of init, train, plot, recommend, evaluate, serve, doctor, workflow, "
            "tune; did you mean train? `menagerie --help` shows all.",
        ),
    ],
)
def test_a_mistake_is_told_in_a_line(shared_project, words, said):
    done = subprocess.run(
        [sys.executable, *words], cwd=shared_project.path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {said}\n")
