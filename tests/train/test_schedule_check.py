"""A schedule that goes on otherwise than the settings say is told before a resumed run trains, with its rates."""

import pytest
from test_author_state import newest, prepare

KINDS = {
    "OneCycle": """
        def build(self, t):
            t.optimizer = SGD(t.model.parameters(), lr=0.1)
            t.scheduler = OneCycleLR(t.optimizer, 0.1, total_steps=6 * t.config.epochs)
    """,
    "Cosine": """
        def build(self, t):
            t.optimizer = SGD(t.model.parameters(), lr=0.1)
            t.scheduler = CosineAnnealingLR(t.optimizer, t.config.epochs)
    """,
    "Sequence": """
        def build(self, t):
            t.optimizer = o = SGD(t.model.parameters(), lr=0.1)
            half = t.config.epochs // 2
            t.scheduler = SequentialLR(o, [LinearLR(o, 0.5, 1, half), MultiStepLR(o, [half])], [half])
    """,
    "Warmup": """
        def build(self, t):
            t.optimizer = SGD(t.model.parameters(), lr=0.1)
            t.scheduler = warmup_cosine(t.optimizer, 2, 6 * t.config.epochs)
    """,
    "Exponential": "\n        def build(self, t): ...\n",
}
TOLD = {
    "Cosine": "WARNING the schedule (CosineAnnealingLR) keeps the length that the run began with (T_max 2, not 4): the "
    "learning rate goes on with 0 and ends with 0.05 in epoch 4 (between 0 and 0.05 on the way). A new run has a "
    "schedule of the new length",
    "Sequence": "(SequentialLR) keeps the length that the run began with (milestones [1], not [2]; "
    "0.total_iters 1, not 2; 1.milestones [1], not [2]): the learning rate goes on with 0.01 and ends with 0.01 in ",
    "Warmup": "(LambdaLR) follows the settings of now: the learning rate jumps from 0 to 0.05 and ends with "
    "0.000509 in epoch 4 (between 0 and 0.05 on the way)",
}


@pytest.fixture(scope="module")
def schedules(shared_project):
    prepare(shared_project, KINDS)
    return shared_project


@pytest.mark.parametrize("kind", TOLD)
def test_what_the_rate_will_do_is_told(kind, schedules):
    assert schedules.run("Holder", f"kind={kind}", "epochs=2").returncode == 0
    done = schedules.run("Holder", f"kind={kind}", "--resume", "epochs=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOLD[kind] in done.stdout + done.stderr


def test_a_schedule_that_would_run_out_is_refused_before_it_trains(schedules):
    assert schedules.run("Holder", "kind=OneCycle", "epochs=2").returncode == 0
    before = (newest(schedules) / "metrics.json").read_bytes()
    done = schedules.run("Holder", "kind=OneCycle", "--resume", "epochs=4")
    assert done.returncode == 2
    assert "its schedule (OneCycleLR) has 0 steps left after epoch 2, the epochs need 12" in done.stderr
    assert "set epochs back to what the run began with, or start a new run" in done.stderr
    assert (newest(schedules) / "metrics.json").read_bytes() == before
    assert schedules.run("Holder", "kind=OneCycle", "--resume", "epochs=2").returncode == 0


def test_a_schedule_without_a_length_is_not_talked_of(schedules):
    assert schedules.run("Holder", "kind=Exponential", "epochs=2").returncode == 0
    done = schedules.run("Holder", "kind=Exponential", "--resume", "epochs=4")
    assert done.returncode == 0 and "schedule" not in done.stdout + done.stderr
