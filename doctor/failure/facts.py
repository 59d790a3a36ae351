"""What a traceback or a log says, as the parts of the doctor hand it on."""

from dataclasses import dataclass, field

from doctor.environment.facts import Declared, Gpu


@dataclass(frozen=True)
class Frame:
    """A line of a traceback.

    Args:
        file: path as it stands, with forward slashes.
        line: number of the line; None where not told.
        function: name of the function.
        code: the line's text; empty where not shown.
        module: top-level module under a folder of packages ("transformers"); None for the user's own files and for the
            standard library.
    """

    file: str
    line: int | None = None
    function: str = ""
    code: str = ""
    module: str | None = None


@dataclass(frozen=True)
class Raised:
    """An exception of a chain.

    Args:
        type: its name without the module, such as "ImportError"; "" for an error line of a program that is not Python.
        message: its text, all lines of it.
        frames: from the outermost to the innermost.
        then: how the next one of the chain follows: "cause" (raise from), "context" (while it was handled), None.
        process: what is said of the process or rank that it is of.
    """

    type: str
    message: str
    frames: tuple[Frame, ...] = ()
    then: str | None = None
    process: str | None = None

    @property
    def line(self) -> str:
        """The line as Python prints it: type, colon, message."""
        return f"{self.type}: {self.message}" if self.type and self.message else self.type or self.message


@dataclass(frozen=True)
class Platform:
    """What a text tells of where it was written: each None where it doesn't.

    Args:
        sys_platform: "linux", "darwin" or "win32".
        python: "3.11" or "3.11.7".
        place: "colab", "kaggle", "notebook", "docker", "kubernetes", "wsl", "conda" or "slurm".
        gpus: processors that are named, with capability and memory where told.
        driver: version of the NVIDIA driver.
        cuda: CUDA version that torch was built for, or that is told of.
        user_site: whether frames or paths lie in a per-user folder of packages.
    """

    sys_platform: str | None = None
    python: str | None = None
    place: str | None = None
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    user_site: bool = False


@dataclass(frozen=True)
class Failure:
    """What failed.

    Args:
        kind: "python", "pip", "uv", "build", "loader" (the dynamic linker), "conda" and "poetry" (their
            resolvers), "log" (nothing that is known), or "silent" (no error: somebody describes what is odd).
        raised: exceptions in the order of time: the first is the first cause, the last is what the user saw last.
        lines: other lines that tell something: warnings before the error, errors of tools, in order.
        text: the text without credentials, colours and progress bars, cut to what matters of a long one.
        stated: versions that the text tells: pip list, pip freeze, collect_env, names with versions in sentences; "<0",
            in which no version lies, where it says that something is not installed.
        platform: where it happened.
        command: the command that failed, where told.
        cut: whether the text begins or ends in the middle.
    """

    kind: str
    raised: tuple[Raised, ...] = ()
    lines: tuple[str, ...] = ()
    text: str = ""
    stated: tuple[Declared, ...] = ()
    platform: Platform = field(default_factory=Platform)
    command: str | None = None
    cut: bool = False

    @property
    def first(self) -> Raised | None:
        """The first cause."""
        return self.raised[0] if self.raised else None

    @property
    def importer(self) -> str | None:
        """Top-level module of the deepest third-party frame of the first cause: who asked for what was not there."""
        frames = self.first.frames if self.first else ()
        return next((frame.module for frame in reversed(frames) if frame.module), None)
