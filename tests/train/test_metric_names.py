"""Numbers that would stand in the place of the program's own are refused, with the names that are taken."""

import pytest
from test_author_state import prepare

KINDS = {
    "Task": """
        def build(self, t): ...
        def loss(self, t, x, y):
            task = F.cross_entropy(t.model(x), y)
            t._collect_batch_metrics({"loss": task})
            return task + 10
    """,
    "Epoch": """
        def build(self, t): ...
        def loss(self, t, x, y):
            if not t.model.training:
                t._collect_batch_metrics({"epoch": 7.0})
            return F.cross_entropy(t.model(x), y)
    """,
    "Free": """
        def build(self, t): ...
        def loss(self, t, x, y):
            task = F.cross_entropy(t.model(x), y)
            t._collect_batch_metrics({"task_loss": task, "epochs": 1.0})
            return task + 10
    """,
    "ReplacesTheLoss": """
        def build(self, t): t.callbacks = [Putting("on_validation_end", "val_loss")]
    class Putting(Callback):
        def __init__(self, moment, name):
            def put(trainer, numbers): numbers[name] = 7.0
            setattr(self, moment, put)
        def on_validation_end(self, trainer, numbers): ...
        def on_log(self, trainer, numbers): ...
    """,
    "CountsEpochs": """
        def build(self, t): t.callbacks = [Putting("on_validation_end", "val_epoch")]
    """,
    "CountsSteps": """
        def build(self, t): t.callbacks = [Putting("on_log", "step")]
    """,
}


@pytest.fixture(scope="module")
def metrics(shared_project):
    prepare(shared_project, KINDS)
    return shared_project


@pytest.mark.parametrize(("kind", "name"), [("Task", "loss"), ("Epoch", "epoch")])
def test_a_metric_with_a_taken_name_is_refused_before_it_trains(kind, name, metrics):
    done = metrics.run("Holder", f"kind={kind}")
    assert done.returncode == 2
    assert f"HolderTrainer gives _collect_batch_metrics a metric '{name}', and that name is taken: " in done.stderr
    assert "epoch 1/" not in done.stdout


def test_a_metric_with_a_name_of_its_own_is_free(metrics):
    done = metrics.run("Holder", "kind=Free", "epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "moment", "name"),
    [
        ("ReplacesTheLoss", "on_validation_end", "val_loss"),
        ("CountsEpochs", "on_validation_end", "val_epoch"),
        ("CountsSteps", "on_log", "step"),
    ],
)
def test_a_callback_s_number_with_a_taken_name_ends_the_run(kind, moment, name, metrics):
    done = metrics.run("Holder", f"kind={kind}", "epochs=1")
    assert done.returncode == 4, done.stdout + done.stderr
    told = f"callback Putting puts '{name}' into the numbers of {moment}, and that name is taken: "
    assert told in done.stderr and "Give the number another name." in done.stderr
