"""What a proof comes to."""

from dataclasses import dataclass, field

from doctor.finding import Change

PROVED = "proved"
DISPROVED = "disproved"  # it failed as it should, and no change mended it
NOT_REPRODUCED = "not reproduced"
NOT_PROVABLE = "not provable here"
NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Budget:
    """What a proof may take.

    Args:
        seconds: time for all of it.
        download: bytes that may be downloaded, by an estimate made before.
        run: seconds for one run of the failing code.
    """

    seconds: float = 300.0
    download: int = 1_000_000_000
    run: float = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a run of the failing code went.

    Args:
        passed: whether it ended with exit code 0.
        code: its exit code; None where it was stopped for time.
        errors: its exception lines, such as "ImportError: cannot import name ...", in the order of printing.
        text: the end of what it printed.
        seconds: how long it took.
    """

    passed: bool
    code: int | None
    errors: tuple[str, ...] = ()
    text: str = ""
    seconds: float = 0.0

    @property
    def last(self) -> str:
        """What it ended with, in a line."""
        if self.passed:
            return "it passes"
        if self.errors:
            return self.errors[-1]
        if self.code is None:
            return "it was stopped for time"
        return f"it was ended by signal {-self.code}" if self.code < 0 else f"it ended with exit code {self.code}"


@dataclass(frozen=True)
class Trial:
    """A change that was tried.

    Args:
        change: the change.
        after: how the failing code ran with it; None where it could not be installed.
        resolved: what was installed then, "peft==0.13.2".
        breaks: what the installer's check says that it did not say before the change.
        text: why it was not run; empty where it was.
    """

    change: Change
    after: Outcome | None
    resolved: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    text: str = ""

    @property
    def mends(self) -> bool:
        """Whether the failing code passes with it."""
        return self.after is not None and self.after.passed


@dataclass(frozen=True)
class Proof:
    """What became of it.

    Args:
        state: one of PROVED, DISPROVED, NOT_REPRODUCED, NOT_PROVABLE, NOT_TRIED.
        text: what was done and seen, or why nothing was, in sentences.
        change: the smallest change of those tried that mends it; None where none does.
        before: how the failing code ran without a change; None where it did not.
        after: how it ran with the change.
        broken: what was installed when it failed, "peft==0.14.0".
        resolved: what was installed when it passed.
        breaks: what the change breaks in the scratch environment, by the installer's check.
        trials: all that was tried, in order.
        left_out: what of the environment could not be built again, a sentence each.
        folder: folder of the logs; None where nothing ran.
        seconds: how long it took.
        platform: "linux-x86_64, Python 3.11.7".
    """

    state: str
    text: str
    change: Change | None = None
    before: Outcome | None = None
    after: Outcome | None = None
    broken: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = field(default=(), repr=False)
    left_out: tuple[str, ...] = ()
    folder: str | None = None
    seconds: float = 0.0
    platform: str = ""
