"""When numbers go wrong: what was the step, which layer was the first, and the same again by `train.py --replay`.

`report.py` is called by the loop; it reads the batches again and writes `failure/` of the run (`files.py`). `probe.py`
repeats the step while `watch.py` looks at every layer and operation, `measure.py` and `batch_check.py` measure, and
`finding.py` names the cause. `storage/failed_runs.py` finds a run that has failed, and `commands/replay.py` repeats its
step.
"""

from train.context import RunContext
from train.errors import TrainingError


def bad_training_step(run: RunContext, missed: int) -> TrainingError:
    """Explain a step that the guard has left out.

    Args:
        run: the run whose guard has just been asked.
        missed: number of steps that were left out, the bad one and all after it.

    Returns:
        The error to raise.
    """
    from train.failures.report import BadStep, numbers_gone_wrong  # what most runs never need

    run.guard.restore_buffers()
    progress, position = run.record.progress, run.position
    where = (progress.epoch, position.steps - missed, progress.step - missed)
    return numbers_gone_wrong(run, BadStep("train", *where, position.start, run.guard.snapshot_of(missed)))


def bad_validation(run: RunContext) -> TrainingError:
    """Explain a validation whose loss is not finite; returns the error to raise."""
    from train.failures.report import BadStep, numbers_gone_wrong

    progress, start = run.record.progress, run.position.start
    return numbers_gone_wrong(run, BadStep("val", progress.epoch, 0, progress.step, start))
