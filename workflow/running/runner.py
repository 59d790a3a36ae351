"""Steps are run, those that don't need each other side by side, until none is left that may."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from constants.counting import counted
from constants.time_spans import span
from doctor.environment.facts import Environment
from workflow.definition.facts import Definition, Step
from workflow.estimates.estimate import estimate_of
from workflow.estimates.spending import Spending, money
from workflow.failures.advice import CONNECTION, Advice
from workflow.failures.environment_fault import Examination
from workflow.failures.kinds import kind_named
from workflow.journal.digests import Digests
from workflow.journal.journal import Journal
from workflow.journal.state import StepState, command_of, inputs_of, outputs_of, request_digest, states_of
from workflow.running.prerequisites import lacking
from workflow.running.screen import Screen, clock_time
from workflow.running.step_process import end_left_behind, events_name
from workflow.running.step_run import Ended, StepRun, file_name
from workflow.watching.followed_file import FollowedFile
from workflow.watching.progress import Progress
from workflow.watching.trouble import Trouble

_LOOK = 0.1  # seconds between two looks at what runs
_SHOWN = 5  # last lines of a failed step's output
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0
_RUNNABLE = ("ready", "stale", "failed", "stopped")


@dataclass(frozen=True)
class Place:
    """Where steps run.

    Attributes:
        folder: the project's folder.
        python: its interpreter.
        variables: environment variables that steps see.
        packages: what is installed for that interpreter.
        program: the beginning of what is typed to go on, "python workflow.py".
        words: what names folder and preset there.
        bounds: what else a run was given, " --until 5".
    """

    folder: Path
    python: str
    variables: Mapping[str, str]
    packages: Environment
    program: str
    words: str
    bounds: str = ""


@dataclass
class _Waiting:
    """A step that is begun again: for a lost connection, or as often as workflow.yaml allows."""

    until: float
    since: float
    pause: float
    attempts: int = 0
    reached: float = 0.0


class Runner:
    """Runs a workflow's steps.

    Args:
        definition: the workflow.
        preset: the preset that holds.
        place: where they run.
        journal: the journal, held by this process.
        screen: where a person is told.
        spending: what was spent, and whether more may be.
        chosen: numbers of the steps that may be run.
        parallel: steps that run at a time.
        anew: steps that are run although they are done.
        clock: seconds that go on; sleep: waits so many. For tests.
    """

    def __init__(
        self, definition: Definition, preset: str, place: Place, journal: Journal, screen: Screen,
        spending: Spending, chosen: frozenset[int], parallel: int = 2, anew: frozenset[int] = frozenset(),
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._definition, self._preset, self._place = definition, preset, place
        self._journal, self._screen = journal, screen
        self._spending = spending
        self._chosen, self._parallel, self._anew = chosen, parallel, set(anew)
        self._clock, self._sleep = clock, sleep
        self._settings = definition.presets[preset]
        self._running: dict[int, StepRun] = {}
        self._again: dict[int, _Waiting] = {}
        self._failed: set[int] = set()
        self._examined: list[tuple[StepRun, Ended, Examination]] = []
        self._is_due = True
        self._digests = Digests(place.folder)

    def run(self) -> bool:
        """Run steps until none is left that may; returns whether all that were chosen are done.

        Raises:
            KeyboardInterrupt: somebody stopped it; what ran was given time to save.
            JournalError: the journal can't be written.
        """
        self._end_what_was_left()
        self._spending.take(self._journal.read())
        try:
            while True:
                now = self._clock()
                # Files are read over only when a step has ended, or is due again.
                if self._is_due or any(now >= waiting.until for waiting in self._again.values()):
                    self._is_due = False
                    self._begin_what_may(now)
                self._tell_examined()
                if not self._running and not self._again and not self._examined:
                    return self._told_end()
                self._look(self._clock())
                self._screen.show([(run.step, run.progress) for run in self._running.values()], self._clock())
                self._sleep(_LOOK)
        except BaseException:
            self._stop_all()
            raise

    def states(self) -> tuple[StepState, ...]:
        """Return how far each step is."""
        return states_of(self._definition, self._preset, self._journal.read(), self._digests, running=True)

    def _end_what_was_left(self) -> None:
        """End processes of a runner that was killed: else the same step would run twice at a time."""
        last = {event.step: event for event in self._journal.read()}
        for step in self._definition.steps:
            event = last.get(step.number)
            if event is None or event.kind != "started":
                continue
            if end_left_behind(self._journal.logs, file_name(step), event.facts.get("pid")):
                self._screen.say(f"{self._name(step)}: it was still running without us; ended, to go on")
            told = Progress()
            for line in FollowedFile(self._journal.logs / events_name(file_name(step))).lines():
                told.take_event_line(line, 0.0)
            self._journal.append("stopped", step.number, {"text": "the runner was killed", **self._spent(told)})

    def _begin_what_may(self, now: float) -> None:
        states = self.states()
        done = {each.step.number for each in states if each.state == "done" and each.step.number not in self._anew}
        for state in states:
            step = state.step
            if len(self._running) >= self._parallel:
                return
            if step.number not in self._chosen or step.number in self._running or step.number in self._failed:
                continue
            waiting = self._again.get(step.number)
            if waiting is not None and now < waiting.until:
                continue
            runnable = state.state in _RUNNABLE or (state.state == "done" and step.number in self._anew)
            if not runnable or not done.issuperset(step.needs.steps):
                continue
            if step.person and not step.command:
                continue
            if state.state == "stale":
                self._screen.say(f"{self._name(step)}: again, since {state.reason}")
            self._begin(step, now)

    def _begin(self, step: Step, now: float) -> None:
        where = self._place
        inputs = inputs_of(step, self._settings, self._digests)
        lacks = [*self._beyond_means(step),
                 *lacking(step, self._settings, where.folder, where.variables, where.packages, inputs)]  # fmt: skip
        if lacks:
            self._told_lacks(step, lacks, now)
            return
        # A runner that was killed before it could write down what it had begun.
        end_left_behind(self._journal.logs, file_name(step), None)
        try:
            run = StepRun(step, self._definition, self._preset, where.folder, self._journal.logs, where.python,
                          where.variables, now)  # fmt: skip
        except OSError as error:
            self._failed.add(step.number)
            self._journal.append("failed", step.number, {"text": str(error), "failure": "start"})
            self._screen.say(f"{self._name(step)}: can't begin: {error.strerror or error}; {error.filename or ''}")
            return
        self._running[step.number] = run
        self._anew.discard(step.number)
        if step.number in self._again:
            self._again[step.number].until = float("inf")  # it is under way
        self._journal.append("started", step.number, {"pid": run.pid, "request": run.request, "preset": self._preset})
        self._screen.say(f"{clock_time()} {self._name(step)} ...")

    def _told_lacks(self, step: Step, lacks: Sequence[Advice], now: float) -> None:
        """Tell what a step lacks, and wait for what comes by itself."""
        what = "; ".join(lack.what for lack in lacks)
        self._journal.append("failed", step.number, {"text": what, "failure": "prerequisite"})
        if all(lack.passes for lack in lacks) and (pause := self._pause(step, lacks[0], 0, 0.0, now)) is not None:
            self._screen.say(f"{self._name(step)}: {what}; looked at again in {span(pause)}")
            return
        self._failed.add(step.number)
        self._again.pop(step.number, None)
        self._screen.say(f"{self._name(step)}: can't begin")
        for lack in lacks:
            self._screen.say("\n".join(self._told(lack)))
        self._screen.say(f"    then   {self._goes_on()}")

    def _beyond_means(self, step: Step) -> list[Advice]:
        """Say what a step would take of money and disk that is not there."""
        told = []
        takes = estimate_of(step, self._settings, self._spending.price)
        budget = self._spending.budget
        spent = self._spending.total(run.progress.counts for run in self._running.values())
        about = (takes.dollars or 0.0) if self._spending.hosted else 0.0
        if budget is not None and about and spent + about > budget:
            text = f"{money(spent)} is spent, it will take about {money(about)}, and the budget is {money(budget)}"
            ways = (f"Give more, --budget {math.ceil(spent + about)}, or take a smaller preset.",)
            told.append(Advice("budget", text, "", "What all steps of the folder may cost together was bounded.", ways))
        free = shutil.disk_usage(self._place.folder).free / 1e6
        if takes.megabytes > free:
            text = f"it will need about {takes.megabytes:,.0f} MB of disk, and {free:,.0f} MB are free"
            told.append(Advice("disk", text, "", "What it makes would not fit.", kind_named("disk").recovery))
        return told

    def _spent(self, progress: Progress) -> dict[str, float]:
        """Return what the journal keeps of a run's tokens and money."""
        dollars = self._spending.of(progress.counts)
        return {**progress.counts, **({} if dollars is None else {"dollars": round(dollars, 6)})}

    def _watch_money(self, run: StepRun) -> None:
        """Stop a step that has used up the budget, before it spends more."""
        spending = self._spending
        run.progress.spent = spending.so_far(run.step.number, run.progress.counts)
        if spending.budget is None or run.has_ended():
            return
        total = spending.total(each.progress.counts for each in self._running.values())
        if total >= spending.budget:
            run.stop_for(Trouble("budget", f"the budget of {money(spending.budget)} is used up: {money(total)}", True))

    def _look(self, now: float) -> None:
        for number, run in list(self._running.items()):
            trouble = run.look(now)
            self._watch_money(run)
            if trouble is not None and not trouble.stops:
                self._screen.say(f"{self._name(run.step)}: {trouble.text}")
            if run.has_ended():
                del self._running[number]
                self._is_due = True
                self._end(run, now)

    def _end(self, run: StepRun, now: float) -> None:
        step, ended = run.step, run.ended(now)
        facts = {**ended.facts, **self._spent(run.progress)}
        cost = self._spending.so_far(step.number, run.progress.counts)
        if ended.passed:
            self._again.pop(step.number, None)
            self._journal.append("done", step.number, facts)
            self._spending.take(self._journal.read())
            took = span(float(str(ended.facts["seconds"])))
            self._screen.say(f"{clock_time()} {self._name(step)}: done in {took}{f', {money(cost)}' if cost else ''}")
            for check in ended.checks:
                self._screen.say(f"    ok  {check.text}")
            return
        self._journal.append("failed", step.number, facts)
        self._spending.take(self._journal.read())
        assert ended.advice is not None
        advice = ended.advice
        pause = self._pause(step, advice, int(str(ended.facts.get("code") or 0)), run.progress.done or 0.0, now)
        if pause is not None:
            self._screen.say(f"{self._name(step)}: {advice.what}; begun again in {span(pause)}")
            return
        waited = self._again.pop(step.number, None)
        if advice.passes and waited is not None:
            advice = replace(advice, what=f"{advice.what}; it was waited for, {span(now - waited.since)} long")
        self._failed.add(step.number)
        if Examination.is_worth(advice):
            where = self._place
            command = " ".join(command_of(step, self._settings))
            self._examined.append(
                (run, ended, Examination(advice, run.lines, command, where.python, where.folder, where.variables))
            )
            return
        self._tell_failure(run, ended, advice)

    def _tell_failure(self, run: StepRun, ended: Ended, advice: Advice) -> None:
        printed = [] if ended.checks else [f"    | {line}" for line in run.last_lines(_SHOWN)]
        self._screen.say("\n".join([f"{self._name(run.step)}: failed", *printed, *self._told(advice)]))
        for check in ended.checks:
            self._screen.say(f"    {'ok ' if check.passed else 'NOT'} {check.text}")
        log = run.log.relative_to(self._place.folder) if run.log.is_relative_to(self._place.folder) else run.log
        self._screen.say(f"    then   {self._goes_on()}\n    log    {log}")

    def _tell_examined(self) -> None:
        """Tell of failures whose environment was looked at meanwhile."""
        for one in list(self._examined):
            run, ended, examination = one
            if (advice := examination.result()) is not None:
                self._examined.remove(one)
                self._tell_failure(run, ended, advice)

    @staticmethod
    def _told(advice: Advice) -> list[str]:
        lines = [f"    what   {advice.what}"]
        lines += [f"    where  {advice.where}"] if advice.where else []
        lines += [f"    why    {advice.cause}"]
        lines += [f"    do     {text}" for text in advice.recovery]
        return [*lines, *(f"    type   {text}" for text in advice.commands)]

    def _goes_on(self) -> str:
        """Return the command that goes on, as whoever called this one would type it."""
        return f"{self._place.program} run {self._place.words}".rstrip() + self._place.bounds

    def _pause(self, step: Step, advice: Advice, code: int, reached: float, now: float) -> float | None:
        """Return how long to wait before a step is begun again; None where it isn't.

        Args:
            step: the step.
            advice: what it failed for.
            code: its exit code.
            reached: how far it had come: where that is further than ever, its connection was there meanwhile.
            now: seconds of the clock.
        """
        waiting = self._again.get(step.number)
        if waiting is None or reached > waiting.reached:
            waiting = _Waiting(now, now, _FIRST_WAIT, waiting.attempts if waiting else 0, reached)
        self._again[step.number] = waiting
        if advice.passes or code == CONNECTION:
            if now - waiting.since > 60 * step.retry.minutes:
                return None
        elif waiting.attempts >= step.retry.attempts:
            return None
        else:
            waiting.attempts += 1
        pause = waiting.pause
        waiting.until, waiting.pause = now + pause, min(2 * pause, _LONGEST_WAIT)
        return pause

    def _stop_all(self) -> None:
        for number, run in self._running.items():
            self._screen.say(f"{self._name(run.step)}: stopping, so that it can save")
            run.stop()
            self._journal.append("stopped", number, {"text": "it was stopped", **self._spent(run.progress)})

    def _told_end(self) -> bool:
        states = [state for state in self.states() if state.step.number in self._chosen]
        left = [state for state in states if state.state != "done"]
        if not left:
            self._screen.say(f"all {counted(len(states), 'step')} done")
            return True
        for state in left:
            number = state.step.number
            if state.state == "waiting":
                typed = f"{self._place.program} step {number} {self._place.words}".rstrip()
                self._screen.say(f"{self._name(state.step)}: for you to do; then `{typed} --done`")
            elif number not in self._failed:
                self._screen.say(
                    f"{self._name(state.step)}: {state.state}{f', {state.reason}' if state.reason else ''}"
                )
        return False

    def _name(self, step: Step) -> str:
        return f"[Step {step.number}/{len(self._definition.steps)}] {step.title}"


def finish_by_hand(definition: Definition, preset: str, step: Step, journal: Journal, folder: Path, note: str) -> None:
    """Write down that a person has done a step.

    Args:
        definition: the workflow.
        preset: the preset that holds.
        step: the step.
        journal: the journal, held by this process.
        folder: the project's folder.
        note: what the person says of it.
    """
    settings, digests = definition.presets[preset], Digests(folder)
    journal.append(
        "done", step.number,
        {"request": request_digest(step, settings), "inputs": inputs_of(step, settings, digests),
         "outputs": outputs_of(step, settings, digests), "note": note, "by": "person", "seconds": 0},
    )  # fmt: skip
