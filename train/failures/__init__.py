"""When numbers go wrong: what was the step, which layer was the first, and the same again by `train.py --replay`.

`report.py` is called by the loop; it reads the batches again and writes `failure/` of the run (`files.py`). `probe.py`
repeats the step while `watch.py` looks at every layer and operation, `measure.py` and `batch_check.py` measure, and
`finding.py` names the cause. `runs.py` finds a run that has failed, and `replay.py` repeats its step.
"""

from typing import Any

from train.errors import TrainingError


def bad_training_step(trainer: Any, missed: int) -> TrainingError:
    """Explain a step that the guard has left out.

    Args:
        trainer: a BaseTrainer whose guard has just been asked.
        missed: steps that were left out, the bad one and all after it.

    Returns:
        The error to raise.
    """
    from train.failures.report import BadStep, numbers_gone_wrong  # what most runs never need

    trainer._guard.restore_buffers()
    progress, position = trainer.record.progress, trainer._position
    where = (progress.epoch, position.steps - missed, progress.step - missed)
    return numbers_gone_wrong(trainer, BadStep("train", *where, position.start, trainer._guard.beginning(missed)))


def bad_validation(trainer: Any) -> TrainingError:
    """Explain a validation whose loss is not finite; returns the error to raise."""
    from train.failures.report import BadStep, numbers_gone_wrong

    progress, start = trainer.record.progress, trainer._position.start
    return numbers_gone_wrong(trainer, BadStep("val", progress.epoch, 0, progress.step, start))
