"""The checklist. Each entry is a name and a function that looks at a `Subject` and returns a `Verdict`."""

from commands.check import control, data, files, learning, machine, own_loop
from commands.check.report import Verdict
from commands.check.subject import Subject

SAMPLES_FIT, LOSS_AT_START = "samples fit the model", "loss is a finite scalar"


def _loss_falls(subject: Subject) -> Verdict:
    """By the framework's steps, and by those of a `train()` of the trainer's own."""
    return own_loop.with_own_train(learning.loss_falls(subject), own_loop.own_train_learns, subject)


def _checkpoint_round_trip(subject: Subject) -> Verdict:
    """Of the framework's checkpoint, and of those that a `train()` of the trainer's own saves."""
    return own_loop.with_own_train(files.checkpoint_round_trip(subject), own_loop.own_train_resumes, subject)


CHECKLIST = (
    # the data
    (SAMPLES_FIT, data.samples_fit),
    ("data are finite and vary", data.data_are_sane),
    ("loaders share no samples", data.no_shared_samples),
    # the learning
    (LOSS_AT_START, learning.loss_is_finite),
    ("optimizer has all parameters", learning.optimizer_has_all),
    ("every parameter gets a gradient", learning.gradients_arrive),
    ("loss falls", _loss_falls),
    ("one batch can be learned", learning.one_batch_can_be_learned),
    ("all is on the device", machine.all_on_device),
    # what surrounds it
    ("metrics.json", files.metrics_appear),
    ("checkpoint round trip", _checkpoint_round_trip),
    ("scheduler", control.scheduler_steps),
    ("early stopping", control.early_stopping_stops),
    # what the full run takes
    ("time and memory", machine.time_and_memory),
    ("disk space", machine.disk_space),
)
