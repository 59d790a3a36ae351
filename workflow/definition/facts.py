"""What a workflow is, as the parts of the runner hand it on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from workflow.definition.report_facts import Deployment, Section

CATEGORIES = ("setup", "dataset", "data", "training", "evaluation", "end")
CHECKS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "exists": (("files",), ()),
    "rows": (("file",), ("at_least", "at_most", "exactly")),
    "json_field": (("file", "field"), ("at_least", "at_most", "equals")),
    "fields": (("file", "names"), ()),
    "loss_falls": (("file",), ("field", "from", "to", "by")),
    "no_nan": (("file",), ()),
    "checkpoints": (("folder", "steps"), ()),
    "split": (("files", "shares"), ("tolerance",)),
    "disjoint": (("files", "field"), ()),
    "matches": (("file", "pattern"), ()),
    "loads_yaml": (("file",), ("keys",)),
    "loads_adapter": (("folder",), ()),
    "runs": (("command",), ()),
}
"""The checks that there are: keys that each must have, and keys that it may have."""


@dataclass(frozen=True)
class Check:
    """What a step is held to when its command has ended.

    Attributes:
        kind: one of CHECKS.
        arguments: its keys; words in {braces} are settings of the preset.
        line: where it stands in the file.
    """

    kind: str
    arguments: Mapping[str, object]
    line: int


@dataclass(frozen=True)
class Needs:
    """What must be there before a step begins.

    Attributes:
        steps: numbers of steps that must be done.
        files: files and folders; a step is stale when one of them has changed since it was done.
        packages: Python distributions, as requirements.
        python: versions of Python, ">=3.11"; "" for any.
        service: whether the step speaks to the service of models: its key and address are looked at first.
        variables: environment variables, of the process or of .env.
    """

    steps: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    python: str = ""
    service: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a step will take: arithmetic over the preset's settings, "{examples} / 60"; "0" where nothing.

    Attributes:
        minutes: time on the machine that the preset is for.
        tokens_in: tokens that a model reads.
        tokens_out: tokens that a model writes.
        tokens_trained: tokens that a model is trained on.
        megabytes: what is left on disk.
    """

    minutes: str = "0"
    tokens_in: str = "0"
    tokens_out: str = "0"
    tokens_trained: str = "0"
    megabytes: str = "0"


@dataclass(frozen=True)
class Watch:
    """What is looked at while a step runs.

    Attributes:
        stall: it is told to have stalled when nothing moved for so many times as long as usual.
        loss: whether a loss that is no number, or explodes, stops it.
        explosion: a loss so many times the best one so far has exploded.
    """

    stall: float = 5.0
    loss: bool = False
    explosion: float = 10.0


@dataclass(frozen=True)
class Retry:
    """How often a step is begun again after a failure that passes by itself.

    Attributes:
        attempts: times that it is begun again after other errors; 0 for never.
        minutes: how long a lost connection is waited for.
    """

    attempts: int = 0
    minutes: float = 60.0


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        number: its number, by which people name it.
        name: its name, one word.
        title: what is done, as progress shows it: "Generating teacher data".
        category: one of CATEGORIES.
        command: shell words; `python` is the project's own.
        needs: what must be there before.
        produces: files and folders that it makes.
        checks: what it is held to.
        estimate: what it will take.
        watch: what is looked at while it runs.
        retry: how often it is begun again.
        person: whether a person says when it is done.
        advice: what is said when it fails, beside what is read from its output.
        line: where it stands in the file.
    """

    number: int
    name: str
    title: str
    category: str
    command: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)
    produces: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    estimate: Estimate = field(default_factory=Estimate)
    watch: Watch = field(default_factory=Watch)
    retry: Retry = field(default_factory=Retry)
    person: bool = False
    advice: str = ""
    line: int = 0


@dataclass(frozen=True)
class Definition:
    """A workflow.

    Attributes:
        name: its name, one word.
        title: what it does.
        preset: the preset that holds where none is named.
        presets: settings by preset; each preset has the same keys.
        steps: the steps, by number.
        files: name of the file that each setting stands in.
        model: the model whose prices hold, with settings in braces; "" where there is none.
        sections: what its report shows beside its steps.
        deployment: how its result is used; None where nothing is said of it.
    """

    name: str
    title: str
    preset: str
    presets: Mapping[str, Mapping[str, object]]
    steps: tuple[Step, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    sections: tuple[Section, ...] = ()
    deployment: Deployment | None = None

    def step(self, number: int) -> Step:
        """Return the step of a number.

        Raises:
            KeyError: there is none.
        """
        for one in self.steps:
            if one.number == number:
                return one
        raise KeyError(number)
