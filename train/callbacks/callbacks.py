"""All callbacks of a run behind one door, which names the one that fails."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beautilog import logger

from config import ConfigError
from storage.errors import OutputError
from train.callbacks.callback import Callback
from train.error_advice import explained
from train.errors import TrainerContractError, TrainingError
from train.loop.record import OF_A_HISTORY
from train.loop.step_losses import OF_A_READING
from train.loop.stop_signals import Pruned
from train.trainer_protocol import Trainer

MOMENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))
# What other frameworks call such a moment, where the spelling doesn't tell.
_ELSEWHERE = {
    "on_batch_end": "on_step_end", "on_train_batch_end": "on_step_end", "on_after_backward": "on_step_end",
    "on_before_optimizer_step": "on_step_end", "on_exception": "on_failure", "on_save": "on_checkpoint",
    "on_save_checkpoint": "state_dict", "on_load_checkpoint": "load_state_dict", "on_fit_start": "on_train_begin",
    "on_fit_end": "on_train_end", "on_evaluate": "on_validation_end",
}  # fmt: skip


class CallbackError(TrainingError):
    """A callback that has failed; the text names it."""


class Callbacks:
    """The callbacks of one run, by the moments that they want: a moment that nobody wants costs nothing.

    Args:
        callbacks: in the order in which they are called.

    Raises:
        TrainerContractError: something that is no callback, or has a method whose name is nearly a moment's.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.all = list(callbacks)
        for callback in self.all:
            _require_callback(callback)
        self._named = _named(self.all)
        self._ended = False
        self.epoch_begin = self._wanting("on_epoch_begin")
        self.step_end = self._wanting("on_step_end")
        self.log = self._wanting("on_log")
        self.validation_end = self._wanting("on_validation_end")
        self.epoch_end = self._wanting("on_epoch_end")
        self.checkpoint = self._wanting("on_checkpoint")

    def every_step(self) -> str | None:
        """Return the name of a callback that must see each optimizer step by itself; None where there is none."""
        for name, callback in self._named.items():
            wants = callback in self.step_end if callback.every_step is None else callback.every_step
            if wants:
                return name
        return None

    def names_without_loop(self, chosen: Sequence[Callback]) -> list[str]:
        """Return the names of those that want moments which a trainer with a loop of its own doesn't have.

        Args:
            chosen: callbacks that somebody has chosen; the run's own ones miss nothing that one would look for.
        """
        wanting = [*self.epoch_begin, *self.step_end, *self.log]
        return [name for name, callback in self._named.items() if callback in wanting and callback in chosen]

    def on_train_begin(self, trainer: Trainer) -> None:
        """Tell all that a session of the run begins."""
        self._ended = False
        for callback in self._wanting("on_train_begin"):
            with self._named_errors(callback, "on_train_begin"):
                callback.on_train_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Tell those who want it that an epoch begins."""
        for callback in self.epoch_begin:
            with self._named_errors(callback, "on_epoch_begin"):
                callback.on_epoch_begin(trainer, epoch)

    def on_step_end(self, trainer: Trainer, steps: int) -> None:
        """Tell those who want it that optimizer steps are done."""
        for callback in self.step_end:
            with self._named_errors(callback, "on_step_end"):
                callback.on_step_end(trainer, steps)

    def on_log(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Let those who want it see, and add to, the numbers of a step."""
        for callback in self.log:
            given = dict(numbers)
            with self._named_errors(callback, "on_log"):
                callback.on_log(trainer, numbers)
                _require_numbers(numbers)
            self._require_free(callback, "on_log", given, numbers, OF_A_READING)

    def on_validation_end(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        """Let those who want it see, and add to, the numbers of a validation."""
        for callback in self.validation_end:
            given = dict(numbers)
            with self._named_errors(callback, "on_validation_end"):
                callback.on_validation_end(trainer, numbers)
                _require_numbers(numbers)
            pending = {name for name in numbers if trainer.record.pending(name) is not None} - given.keys()
            self._require_free(callback, "on_validation_end", given, numbers, {*OF_A_HISTORY, *pending})

    def on_epoch_end(self, trainer: Trainer, rows: dict[int, dict[str, float]]) -> None:
        """Tell those who want it what has entered the history, epoch by epoch."""
        for callback in self.epoch_end:
            for epoch, numbers in rows.items():
                with self._named_errors(callback, "on_epoch_end"):
                    callback.on_epoch_end(trainer, epoch, dict(numbers))

    def on_checkpoint(self, trainer: Trainer, paths: Iterable[Path]) -> None:
        """Tell those who want it which checkpoints are written."""
        for path in paths:
            for callback in self.checkpoint:
                with self._named_errors(callback, "on_checkpoint"):
                    callback.on_checkpoint(trainer, path)

    def on_failure(self, trainer: Trainer, error: BaseException) -> None:
        """Tell all that an error ends the run; what fails meanwhile is a warning, since the error matters more."""
        for failed in self._tell_last("on_failure", lambda callback: callback.on_failure(trainer, error)):
            logger.warning(str(failed))

    def on_train_end(self, trainer: Trainer, state: str) -> None:
        """Tell all, once, that the run has ended. What fails in a run that went well is an error, else a warning."""
        if self._ended:  # and one of them has failed in that
            return
        self._ended = True
        errors = self._tell_last("on_train_end", lambda callback: callback.on_train_end(trainer, state))
        if errors and state in ("finished", "early_stopped"):
            raise errors[0]
        for error in errors:
            logger.warning(str(error))

    def _tell_last(self, moment: str, call: Callable[[Callback], None]) -> list[Exception]:
        """Call a method of all that have it, and return what they raise: each is to have its turn."""
        errors: list[Exception] = []
        for callback in self._wanting(moment):
            try:
                with self._named_errors(callback, moment):
                    call(callback)
            except Exception as error:
                errors.append(error)
        return errors

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those that have one, by name."""
        states = {}
        for name, callback in self._named.items():
            with self._named_errors(callback, "state_dict"):
                states[name] = callback.state_dict()
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; one that is there no more is told."""
        for name, known in state.items():
            if name not in self._named:
                logger.warning(f"the checkpoint has a state of the callback {name}, which this run does not have")
                continue
            with self._named_errors(self._named[name], "load_state_dict"):
                self._named[name].load_state_dict(known)

    def _require_free(
        self, callback: Callback, moment: str, given: Mapping[str, float], numbers: Mapping[str, float], taken: Set[str]
    ) -> None:
        """Refuse numbers in the place of others, which would be lost, or stand in two lists' stead.

        Raises:
            CallbackError: the callback has replaced a number, or used a name of the program's own.
        """
        wrong = [name for name in given if numbers.get(name) is not given[name] and numbers.get(name) != given[name]]
        wrong += [name for name in numbers if name in taken and name not in given]
        if wrong:
            name = next(name for name, known in self._named.items() if known is callback)
            raise CallbackError(
                f"callback {name} puts '{wrong[0]}' into the numbers of {moment}, and that name is taken: "
                f"{', '.join(sorted({*given, *taken}))}. Give the number another name."
            )

    def _wanting(self, moment: str) -> list[Callback]:
        """Return those that define a method themselves."""
        return [callback for callback in self.all if getattr(type(callback), moment) is not getattr(Callback, moment)]

    @contextmanager
    def _named_errors(self, callback: Callback, moment: str) -> Iterator[None]:
        try:
            yield
        except (TrainingError, OutputError, ConfigError, Pruned):  # which say themselves what they mean
            raise
        except Exception as error:
            name = next(name for name, known in self._named.items() if known is callback)
            raise CallbackError(f"callback {name} failed in {moment}: {explained(error)}") from error


def _named(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """Name callbacks by their classes; a second one of a class gets a number."""
    named: dict[str, Callback] = {}
    for callback in callbacks:
        kind, number = type(callback).__name__, 1
        while (kind if number == 1 else f"{kind} {number}") in named:
            number += 1
        named[kind if number == 1 else f"{kind} {number}"] = callback
    return named


def _require_callback(callback: object) -> None:
    if isinstance(callback, type):
        name = callback.__name__
        raise TrainerContractError(f"self.callbacks holds the class {name}; give an object: {name}().")
    if not isinstance(callback, Callback):
        raise TrainerContractError(
            f"self.callbacks holds {callback!r}; a callback derives from train.callbacks.Callback."
        )
    for name in dir(type(callback)):
        if (name.startswith("on_") and name not in MOMENTS) or f"on_{name}" in MOMENTS:
            near = [_ELSEWHERE[name]] if name in _ELSEWHERE else difflib.get_close_matches(name, MOMENTS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"the moments are {', '.join(MOMENTS)}."
            raise TrainerContractError(f"{type(callback).__name__}.{name} would never be called; {advice}")


def require_list(name: str, given: object) -> list[Callback]:
    """Return an author's own callbacks.

    Args:
        name: the trainer's.
        given: value of its `callbacks`.

    Raises:
        TrainerContractError: it is no list.
    """
    if not isinstance(given, list | tuple):
        raise TrainerContractError(f"{name}: self.callbacks must be a list of callbacks; it is {given!r}.")
    return list(given)


def _require_numbers(numbers: dict[str, float]) -> None:
    """Turn what a callback has added into floats, so that whoever reads the run's files finds numbers.

    A number on a device is read: a host-device synchronisation of the callback's.
    """
    for name, value in numbers.items():
        if isinstance(value, str) or not hasattr(value, "__float__"):
            raise TypeError(f"numbers[{name!r}] is {value!r}; it must be a number")
        numbers[name] = float(value)
