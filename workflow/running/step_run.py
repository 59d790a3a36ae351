"""One run of a step: its process, what it tells, its trouble, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from doctor.redaction import redact
from workflow.checks.checks import run_check
from workflow.checks.result import CheckResult
from workflow.definition.expression import filled
from workflow.definition.facts import Definition, Step
from workflow.failures.advice import Advice, FailedStep, advise
from workflow.failures.kinds import kind_named
from workflow.journal.digests import Digests
from workflow.journal.state import command_of, inputs_of, outputs_of, request_digest
from workflow.running.step_process import StepProcess
from workflow.watching.followed_file import FollowedFile
from workflow.watching.progress import Progress
from workflow.watching.trouble import Trouble, Watcher

# Checks whose failure is of a kind that is known; of the others it is said that what was made is not right.
_KINDS = {"checkpoints": "checkpoint", "no_nan": "nan"}
_CHECK = ("The script ended well, and what it made is not what it should be.",
          ("Look at what it made and at its log; mend the script, or the settings that the check names.",))  # fmt: skip
_KEPT = 400  # last lines of its output that an error is looked for in


@dataclass(frozen=True)
class Ended:
    """What became of a run.

    Attributes:
        passed: whether it ended well and holds its checks.
        checks: what its checks say.
        advice: what to do where it failed; None where it passed.
        facts: what the journal keeps.
    """

    passed: bool
    checks: tuple[CheckResult, ...]
    advice: Advice | None
    facts: Mapping[str, object] = field(default_factory=dict)


class StepRun:
    """A step that runs.

    Args:
        step: the step.
        definition: the workflow.
        preset: the preset that holds.
        folder: the project's folder.
        logs: folder of its output.
        python: the project's interpreter.
        environment: environment variables.
        now: seconds of a clock that goes on.

    Raises:
        OSError: it can't be begun.
    """

    def __init__(
        self, step: Step, definition: Definition, preset: str, folder: Path, logs: Path, python: str,
        environment: Mapping[str, str], now: float,
    ) -> None:  # fmt: skip
        settings = definition.presets[preset]
        self.step, self.progress = step, Progress()
        self._settings, self._folder, self._python = settings, folder, python
        self._files = definition.files
        self._began = now
        self.progress.begin(now)
        digests = Digests(folder)
        # Taken before it runs: what changes meanwhile makes it stale.
        self._inputs = inputs_of(step, settings, digests)
        self.request = request_digest(step, settings)
        words = tuple(python if word == "python" else word for word in command_of(step, settings))
        self._process = StepProcess(words, folder, logs, file_name(step), environment)
        self._output = FollowedFile(self._process.log, self._process.log_start)
        self._events = FollowedFile(self._process.events)
        self._watcher = Watcher(step.watch, folder)
        self._lines: list[str] = []
        self._trouble: Trouble | None = None

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """Its output."""
        return self._process.log

    def look(self, now: float) -> Trouble | None:
        """Read what it told since the last time; stop it where it must be. Returns trouble that was not told before."""
        self._read(now)
        trouble = self._watcher.look(self.progress, now)
        if trouble is not None and trouble.stops and self._process.code() is None:
            self.stop_for(trouble)
        return trouble

    def stop_for(self, trouble: Trouble) -> None:
        """Stop it for trouble that the runner has found; it may save first."""
        self._trouble = trouble
        self._process.stop()

    def has_ended(self) -> bool:
        """Return whether its process has ended."""
        return self._process.code() is not None

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that it printed, without credentials."""
        return redact("\n".join(self._lines[-count:])).splitlines()

    def stop(self) -> None:
        """Let it save and leave."""
        self._process.stop()
        self._read(self.progress.moved)

    def ended(self, now: float) -> Ended:
        """Hold what it has made to its checks, and say what became of it. Its process must have ended."""
        self._read(now)
        code = self._process.code() or 0
        seconds = round(now - self._began, 1)
        facts: dict[str, object] = {"seconds": seconds, "code": code, **self.progress.counts}
        if code or self._trouble is not None:
            advice = self._advice(code)
            return Ended(False, (), advice, {**facts, "text": advice.what, "failure": advice.kind})
        lacking = [path for path, digest in outputs_of(self.step, self._settings, Digests(self._folder)).items()
                   if digest is None]  # fmt: skip
        found = [CheckResult(False, f"{', '.join(lacking)}: not made, though it ended well")] if lacking else []
        found += [run_check(check, self._settings, self._folder, self._python) for check in self.step.checks]
        failed = [each.text for each in found if not each.passed]
        figures = {name: value for each in found for name, value in each.figures.items()}
        if failed:
            advice = self._advice_of_checks(failed, found[len(found) - len(self.step.checks) :])
            return Ended(False, tuple(found), advice, {**facts, "text": "; ".join(failed), "failure": advice.kind})
        made = outputs_of(self.step, self._settings, Digests(self._folder))
        told = [each.text for each in found]
        facts |= {"request": self.request, "inputs": self._inputs, "outputs": made, "figures": figures, "checks": told}
        return Ended(True, tuple(found), None, facts)

    def _advice_of_checks(self, failed: Sequence[str], found: Sequence[CheckResult]) -> Advice:
        kinds = [check.kind for check, result in zip(self.step.checks, found, strict=True) if not result.passed]
        name = next((_KINDS[kind] for kind in kinds if kind in _KINDS), None)
        own = (self.step.advice,) if self.step.advice else ()
        cause, recovery = _CHECK if name is None else (kind_named(name).cause, kind_named(name).recovery)
        return Advice(name or "check", "; ".join(failed), "", cause, (*own, *recovery))

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that it printed, as they were."""
        return tuple(self._lines)

    def _advice(self, code: int) -> Advice:
        at = ""
        if self.progress.done is not None:
            unit = (self.progress.unit or "step").removesuffix("s")
            of = f" of {self.progress.total:,.0f}" if self.progress.total else ""
            at = f"{unit} {self.progress.done:,.0f}{of}"
        script = next((word for word in command_of(self.step, self._settings) if word.endswith(".py")), "")
        return advise(FailedStep(
            self._lines, code, self._folder, script, at, self._trouble, self.step.advice, tuple(self._inputs),
            self._settings, self._files,
        ))  # fmt: skip

    def _read(self, now: float) -> None:
        for line in self._output.lines():
            self._lines = [*self._lines[-_KEPT:], line]
            self.progress.take_line(line, now)
        for line in self._events.lines():
            self.progress.take_event_line(line, now)


def file_name(step: Step) -> str:
    """Return the name of a step's files in the folder of logs: `08_generate`."""
    return f"{step.number:02}_{step.name}"


def packages_of(step: Step, settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the requirements of a step, with the preset's settings."""
    return tuple(str(filled(one, settings)) for one in step.needs.packages)
