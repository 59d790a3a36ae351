"""The checklist. Each entry is a name and a function that looks at a `Subject` and returns a `Verdict`."""

from commands.check import control, data, files, learning, machine

SAMPLES_FIT, LOSS_AT_START = "samples fit the model", "loss is a finite scalar"

CHECKLIST = (
    # the data
    (SAMPLES_FIT, data.samples_fit),
    ("data are finite and vary", data.data_are_sane),
    ("loaders share no samples", data.no_shared_samples),
    # the learning
    (LOSS_AT_START, learning.loss_is_finite),
    ("optimizer has all parameters", learning.optimizer_has_all),
    ("every parameter gets a gradient", learning.gradients_arrive),
    ("loss falls", learning.loss_falls),
    ("one batch can be learned", learning.one_batch_can_be_learned),
    ("all is on the device", machine.all_on_device),
    # what surrounds it
    ("metrics.json", files.metrics_appear),
    ("checkpoint round trip", files.checkpoint_round_trip),
    ("scheduler", control.scheduler_steps),
    ("early stopping", control.early_stopping_stops),
    # what the full run takes
    ("time and memory", machine.time_and_memory),
    ("disk space", machine.disk_space),
)
