"""The proof itself: build the broken set, see it fail, change it, see it pass."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from constants import ARTIFACTS_DIR
from doctor.child_process import Ran, run_command
from doctor.finding import Change
from doctor.proof.broken_set import BrokenSet
from doctor.proof.error_lines import without_path
from doctor.proof.estimate import estimated, refusal
from doctor.proof.installer import Installer, PipInstaller, UvInstaller, for_cpu, is_unreachable, missing_in
from doctor.proof.judging import (
    is_expected,
    made_exact,
    modules_missing,
    reason,
    shown_change,
    told_without_success,
    with_broken,
)  # fmt: skip
from doctor.proof.log_folder import LogFolder
from doctor.proof.outcome import (
    DISPROVED,
    NOT_PROVABLE,
    NOT_REPRODUCED,
    NOT_TRIED,
    PROVED,
    Budget,
    Outcome,
    Proof,
    Trial,
)
from doctor.proof.scratch import Deadline, run_code, scratch_folder, scratch_python
from doctor.remedy.requirements import named
from doctor.uv import find_uv, uv_environment

DEFAULT_FOLDER = ARTIFACTS_DIR / "doctor" / "proofs"


@dataclass(frozen=True)
class Consent:
    """Whether a proof may be begun.

    Args:
        mode: "never", "ask" or "always".
        ask: asks a person a question that is answered by yes or no; None where there is nobody to ask.
    """

    mode: str = "always"
    ask: Callable[[str], bool] | None = None


class NotProved(Exception):
    """A proof that ends before it shows anything.

    Args:
        state: one of the states of a proof.
        text: why.
    """

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state
        self.text = text


def prove(
    provable: str | Sequence[str],
    broken: BrokenSet | tuple[str, ...],
    changes: Change | Sequence[Change],
    python: str,
    budget: Budget | None = None,
    *,
    expected: Sequence[str] = (),
    consent: Consent | None = None,
    wider: Callable[[tuple[str, ...]], BrokenSet | None] | None = None,
    folder: Path = DEFAULT_FOLDER,
) -> Proof:
    """Try changes, in their order, in a scratch environment until one mends a failure.

    The broken set is installed, the code must fail as expected, then with a change it must pass. The first change that
    mends it and breaks nobody's declared needs is proved; without one, the first that mends it. Behind all others, a
    change that breaks what others declare is tried once more with these moved too. Nothing of the user's
    is read or written but the installer's cache and `folder`; the code runs without a network, a home and variables
    of theirs.

    Args:
        provable: Python source that fails before the change and passes after it; of several the first that fails as
            expected is taken.
        broken: what is installed when it fails; pins are installed whatever they declare.
        changes: what is tried.
        python: interpreter whose version is taken, as a path, or a version such as "3.11".
        budget: time and bytes that it may take.
        expected: exception lines of the failure, "ImportError: cannot import name ..."; one of them must be seen.
            Without any each failure counts.
        consent: whether it may be begun.
        wider: gives a larger broken set where the failure does not show, for names of modules that were not found; None
            where there is none.
        folder: folder of the logs of all proofs.

    Returns:
        What became of it. Never raises for what goes wrong in the environment.

    Raises:
        KeyboardInterrupt: it was stopped; the scratch environment is gone by then.
    """
    budget = budget or Budget()
    offered = (changes,) if isinstance(changes, Change) else tuple(changes)
    tried = tuple(change for change in offered if change.requirements or change.remove or change.environment)
    if not tried:
        kinds = ", ".join(dict.fromkeys(change.kind for change in offered))
        return Proof(NOT_PROVABLE, f"A scratch environment can't show this change ({kinds or 'none is known'}).")
    whole = broken if isinstance(broken, BrokenSet) else BrokenSet(tuple(broken), frozenset(named(broken)))
    deadline = Deadline(budget.seconds)
    with scratch_folder(folder, _cache_of_uv()) as scratch:
        attempt = _Attempt(scratch, folder, python, budget, deadline)
        try:
            attempt.agree(whole, tried, consent or Consent())
            codes = (provable,) if isinstance(provable, str) else tuple(provable)
            proof = attempt.run(codes, whole, tried, tuple(expected), wider)
        except NotProved as ended:
            proof = Proof(ended.state, ended.text)
        except OSError as error:
            proof = Proof(NOT_TRIED, f"The scratch environment can't be made: {error.strerror or error}.")
        return attempt.finish(proof)


def _cache_of_uv() -> str | None:
    uv = find_uv()
    return run_command((*uv, "cache", "dir"), 10, environment=uv_environment()).output.strip() if uv else None


class _Attempt:
    """One proof while it runs."""

    def __init__(self, scratch: Path, folder: Path, python: str, budget: Budget, deadline: Deadline) -> None:
        self._scratch = scratch
        self._folder = folder
        self._budget = budget
        self._deadline = deadline
        self._python = python
        self._log: LogFolder | None = None
        self._step = "install"
        self._left_out: list[str] = []
        self._system = sys.platform
        uv = find_uv()
        self._installer: Installer
        if uv:
            self._installer = UvInstaller(uv, scratch, self._command, uv_environment())
        else:
            self._installer = PipInstaller(scratch, self._command, uv_environment())

    def agree(self, broken: BrokenSet, changes: Sequence[Change], consent: Consent) -> None:
        """Make the empty environment, say what the rest will take, and go on only where that is agreed to."""
        if consent.mode == "never" or (consent.mode == "ask" and consent.ask is None):
            estimate = estimated(broken.pins, None, len(changes))
            raise NotProved(NOT_TRIED, refusal(consent.mode, estimate, self._budget, None) or "")
        if self._installer.name == "pip" and not Path(self._python).is_file():
            raise NotProved(NOT_TRIED, "uv is not there (pip install uv), and pip needs the interpreter itself.")
        self._step = "venv"
        made = self._installer.make(self._python)
        if not made.passed:
            raise NotProved(NOT_TRIED, f"Python {self._python} is not to be had here: {reason(made)}.")
        pins = [for_cpu(pin, self._system) for pin in broken.pins]
        missing = self._installer.would_download(pins) if broken.exact else None
        said = refusal(consent.mode, estimated(broken.pins, missing, len(changes)), self._budget, consent.ask)
        if said:
            raise NotProved(NOT_TRIED, said)

    def run(
        self,
        codes: Sequence[str],
        broken: BrokenSet,
        changes: Sequence[Change],
        expected: tuple[str, ...],
        wider: Callable[[tuple[str, ...]], BrokenSet | None] | None,
    ) -> Proof:
        """Build, see it fail, try the changes."""
        self._open_log()
        before = self._reproduce(codes, broken, expected, wider)
        installed = self._installer.freeze()
        checked = self._installer.check()
        self._write("broken.txt", "".join(f"{pin}\n" for pin in installed))
        proof = Proof(DISPROVED, "", before=before, broken=installed)
        trials: list[Trial] = []
        waiting = list(changes)
        while waiting:
            change = waiting.pop(0)
            if self._deadline.left <= 0:
                trials.append(Trial(change, None, text="There was no time left for it."))
                continue
            if trials:
                self._step = "restore"
                self._installer.set_to(installed)
            trials.append(self._try(change, installed, checked, len(trials) + 1))
            if trials[-1].mends and not trials[-1].breaks:
                break
            if change in changes:
                waiting += with_broken(trials[-1])
        proof = replace(proof, trials=tuple(trials))
        best = next((one for one in trials if one.mends and not one.breaks), None)
        best = best or next((one for one in trials if one.mends), None)
        if best is None:
            return replace(proof, text=told_without_success(before, trials))
        self._write("mended.txt", "".join(f"{pin}\n" for pin in best.resolved))
        text = f"It failed with {without_path(before.last)!r}, and passes with {shown_change(best.change)}."
        if best.breaks:
            text += f" It breaks what others declare: {' '.join(best.breaks)}"
        return replace(
            proof, state=PROVED, text=text, change=best.change, after=best.after, resolved=best.resolved,
            breaks=best.breaks,
        )  # fmt: skip

    def _reproduce(
        self,
        codes: Sequence[str],
        broken: BrokenSet,
        expected: tuple[str, ...],
        wider: Callable[[tuple[str, ...]], BrokenSet | None] | None,
    ) -> Outcome:
        modules: tuple[str, ...] = ()
        while True:
            self._build(broken)
            for code in codes:
                self._set_code(code)
                before = self._run_code("before", ())
                if not before.passed and before.code is not None and is_expected(before, expected, broken):
                    return before
            modules = (*modules, *modules_missing(before))
            larger = wider(modules) if wider and self._deadline.left else None
            if larger is None or set(larger.pins) <= set(broken.pins):
                break
            broken = larger
        told = f"expected {' or '.join(map(repr, expected))}, " if expected else ""
        said = f"It could not be reproduced in a scratch environment: {told}seen: {without_path(before.last)!r}."
        raise NotProved(NOT_REPRODUCED, said)

    def _build(self, broken: BrokenSet) -> None:
        """Install a broken set; what can't be had is left out unless there is nothing to try without it."""
        self._left_out = list(broken.left_out)
        pins = [for_cpu(pin, self._system) for pin in broken.pins]
        while True:
            self._step = "install"
            ran = self._installer.set_to(pins) if broken.exact else self._installer.resolve(pins)
            if ran.passed:
                return
            missing = missing_in(ran.output)
            gone = next((pin for pin in pins if named((pin,)) == (missing,)), None)
            if gone is None or missing in broken.roots or not broken.exact:
                why = reason(ran)
                if is_unreachable(ran.output):
                    why = f"no index can be reached, and not all is in the installer's cache ({why})"
                raise NotProved(NOT_TRIED, f"The broken set can't be installed here: {why}.")
            self._left_out.append(f"{gone.replace('==', ' ')} is left out: it is not to be had here.")
            pins.remove(gone)

    def _try(self, change: Change, installed: tuple[str, ...], checked: tuple[str, ...], number: int) -> Trial:
        self._step = f"change-{number}"
        again = bool(set(named(change.requirements)) & set(change.remove))
        steps: list[Callable[[], Ran]] = []
        if change.remove:
            steps.append(lambda: self._installer.remove(change.remove))
        if change.requirements:
            steps.append(lambda: self._installer.install(change.requirements, again))
        for step in steps:
            ran = step()
            if not ran.passed:
                return Trial(change, None, text=f"It can't be installed: {reason(ran)}.")
        self._step = "check"
        after = self._run_code(f"after-{number}", change.environment)
        new = tuple(line for line in self._installer.check() if line not in checked)
        resolved = self._installer.freeze()
        return Trial(made_exact(change, installed, resolved), after, resolved, new)

    def _run_code(self, name: str, settings: Sequence[tuple[str, str]]) -> Outcome:
        outcome, ran = run_code(self._scratch, min(self._budget.run, self._deadline.left), settings)
        if self._log:
            self._log.add(name, ran)
        return outcome

    def _command(self, words: Sequence[str], environment: Mapping[str, str] | None) -> Ran:
        ran = run_command(words, self._deadline.left, cwd=str(self._scratch), environment=environment)
        if self._log:
            self._log.add(self._step, ran)
        return ran

    def _open_log(self) -> None:
        self._log = LogFolder(self._folder, self._scratch)
        (self._scratch / "code").mkdir()

    def _set_code(self, code: str) -> None:
        (self._scratch / "code" / "provable.py").write_text(f"{code}\n", encoding="utf-8")
        self._write("provable.py", f"{code}\n")

    def _write(self, name: str, text: str) -> None:
        if self._log:
            self._log.write(name, text)

    def finish(self, proof: Proof) -> Proof:
        """Return the proof with what is known at its end, and write its log."""
        proof = replace(proof, seconds=round(self._deadline.spent, 2), left_out=tuple(self._left_out))
        if self._log is None:
            return proof
        log, self._log = self._log, None  # what is asked from here on is not part of it
        code = "import platform, sysconfig; print(sysconfig.get_platform() + ', Python ' + platform.python_version())"
        asked = run_command((scratch_python(self._scratch), "-I", "-c", code), 20)
        where = asked.output.strip() if asked.passed else f"{sys.platform}, Python {self._python}"
        proof = replace(proof, folder=str(log.path), platform=where)
        log.finish(proof, self._installer.version())
        return proof
