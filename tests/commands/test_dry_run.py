"""What `--dry-run` says of a run's schedule: the first, the highest and the last rate of its steps."""

import re

import pytest


def line_of(project, head: str, *words: str) -> str:
    done = project.run(*words, "--dry-run")
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith(head))


def test_a_warm_up_shows_its_peak(shared_project):
    words = ("Faulty", "fault=step_scheduler", "epochs=4", "learning_rate=0.1")
    done = shared_project.run(*words, "--dry-run")
    assert "optimizer: SGD, learning rate 0.1, " in done.stdout
    assert (
        "schedule: LambdaLR, steps each optimizer step: 0.02 at first, highest 0.1 in step 5, 0.00109 in step 20, "
        "the last\n"
    ) in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Faulty", "epochs=3", "learning_rate=0.1"], "highest 0.1 in epoch 1, 0.025 in epoch 3, the last"),
        (["Faulty", "epochs=1", "learning_rate=0.1"], "0.1 throughout"),
        (["FeatureFusion"], "0.01, times 0.5 after 6 validations in a row without improvement"),
    ],
)
def test_a_schedule_by_epoch_and_by_validation(shared_project, words, expected):
    assert line_of(shared_project, "schedule: ", *words).endswith(f": {expected}")


@pytest.mark.parametrize("missing", [1, 5])
def test_a_schedule_that_is_too_short_for_the_run_is_told(project, missing):
    file = project.path / "train/feature_fusion_trainer.py"
    cycle = f"OneCycleLR(self.optimizer, 0.1, total_steps=16 - {missing})"
    text = re.sub(r"ReduceLROnPlateau\(\n.*?\n        \)", cycle, file.read_text(), flags=re.DOTALL)
    file.write_text(text.replace("import ReduceLROnPlateau", "import OneCycleLR"))
    line = line_of(project, "schedule: ", "FeatureFusion", "epochs=4")
    assert re.search(r": 0.004 at first, highest 0\.09\d+ in step [45], ", line)
    assert "then it fails, before the 16 steps of the run are done: ValueError: Tried to step" in line
