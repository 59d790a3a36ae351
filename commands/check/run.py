"""Runs the checklist: `python train.py NAME --check`."""

import sys
import time
import traceback
from collections.abc import Callable

from beautilog import logger

from commands.check.checklist import CHECKLIST, LOSS_AT_START, SAMPLES_FIT
from commands.check.report import FAILED, Verdict, failed, line, skipped, summary
from commands.check.subject import Subject
from commands.probe_steps import build_for_probing, quiet_log
from constants.time_spans import duration
from data.data_error import DataError
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.error_advice import explained
from train.errors import TrainerContractError, TrainingError
from train.loading.loader_faults import explain_loader_fault
from train.model_summary import model_lines
from train.session import machine_for

_LINE_FAILED, _CONTRACT, _DATA = 4, 2, 3  # exit codes


def command(trainer_class: type[BaseTrainer], _: bool) -> int:
    """Build a trainer and go through the checklist: `--check`.

    Returns:
        0 where no line failed, else 4; where the trainer's first samples don't let it be built, the code that a run
        would have: 3 for data, 2 for a loss that is no scalar, 4 for another error of it.
    """
    began = time.monotonic()
    with quiet_log():
        try:
            run = build_for_probing(trainer_class)
        except (DataError, TrainerContractError, TrainingError) as error:
            return _not_built(trainer_class, error, began)
        sys.stdout.write(f"{trainer_class.__name__} on {run.device}; {model_lines(run.model)[0]}\n")
        with machine_for(run):
            verdicts = run_checks(Subject(run, trainer_class), _show)
    sys.stdout.write(f"{summary(verdicts, duration(time.monotonic() - began))}\n")
    return _LINE_FAILED if any(verdict.mark == FAILED for verdict in verdicts) else 0


def _show(name: str, verdict: Verdict) -> None:
    sys.stdout.write(f"{line(name, verdict)}\n")
    sys.stdout.flush()  # the next check may take seconds


def run_checks(subject: Subject, show: Callable[[str, Verdict], None] = lambda *_: None) -> list[Verdict]:
    """Go through the checklist. A check that fails by an error is a failed line, and the others go on.

    Args:
        subject: trainer under check; it is changed: its history has an epoch afterwards.
        show: function that is given each check's name and verdict when there is one.
    """
    verdicts: list[Verdict] = []
    errors: dict[str, str] = {}  # the line that an error was told in, by its text
    for name, check in CHECKLIST:
        try:
            subject.restore()
            verdict = check(subject)
        except Exception as error:  # a trainer's code may raise anything
            logger.debug(traceback.format_exc())
            text = _told(subject.run, error)
            verdict = skipped(f"the error of '{errors[text]}' again") if text in errors else failed(text)
            errors.setdefault(text, name)
        verdicts.append(verdict)
        show(name, verdict)
    return verdicts


def _told(run: RunContext, error: Exception) -> str:
    fault = explain_loader_fault(run, error)
    if fault is not None:
        return str(fault)
    if isinstance(error, DataError | TrainerContractError):
        return str(error)
    return explained(error)


def _not_built(trainer_class: type[BaseTrainer], error: Exception, began: float) -> int:
    """Tell what does not let the trainer be built: its line has failed, nothing else could be looked at.

    Raises:
        TrainerContractError: it has nothing to do with a sample: the class itself is not complete.
    """
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    if not isinstance(error, DataError) and "check_loaders" not in frames:
        raise error
    at = LOSS_AT_START if isinstance(error, TrainerContractError) else SAMPLES_FIT
    sys.stdout.write(f"{trainer_class.__name__}: it can't be built\n")
    verdicts = [failed(str(error)) if name == at else skipped("needs a trainer that is built") for name, _ in CHECKLIST]
    for (name, _), verdict in zip(CHECKLIST, verdicts, strict=True):
        _show(name, verdict)
    sys.stdout.write(f"{summary(verdicts, duration(time.monotonic() - began))}\n")
    if isinstance(error, TrainingError):
        return _LINE_FAILED
    return _DATA if isinstance(error, DataError) else _CONTRACT
