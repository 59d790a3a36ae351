"""What the doctor finds: a verdict on a branch of the decision tree, its evidence, and changes that mend it."""

from dataclasses import dataclass

# The decision tree. A finding's `branch` is one of these.
BRANCHES = {
    "import": ("not_installed", "wrong_version", "shadowed", "stale_or_partial", "binary_abi", "system_library"),
    "cuda": ("not_found", "version_mismatch", "arch_unsupported", "oom"),
    "build": ("missing_tool", "incompatible", "isolation", "wrong_wheel"),
    "resolve": ("conflict", "silent_old", "no_wheel"),
    "runtime": ("api_change", "data_format", "shape", "nan", "behaviour_change", "resources", "environment"),
}
LEVELS = ("error", "warning", "note")
# Ends the `source` of a finding that rests on nothing that was looked up or tried.
NOT_CONFIRMED = "not confirmed"
# What a change does. `pin` moves versions; the others need a hand, and their text says what it does.
KINDS = (
    "pin",
    "install",
    "uninstall",
    "rename",
    "clean",
    "restart",
    "environment",
    "system",
    "code",
    "option",
    "hardware",
)
# Kinds whose requirements and removals become commands of an installer of Python packages.
INSTALLING = ("pin", "install", "uninstall", "clean")


@dataclass(frozen=True)
class Change:
    """One way to mend a finding.

    Args:
        kind: one of KINDS.
        text: what to do, as a sentence with a verb first.
        requirements: what to install, as PEP 508 requirements: "peft<0.14". Empty where nothing is. Only INSTALLING
            kinds have any: a package of conda or of the system is named in `text` and `commands`.
        remove: distributions to uninstall first; only of INSTALLING kinds.
        holds: requirements under which it is right: "transformers<4.43". For the reader and for the search.
        commands: shell commands, for kinds other than `pin` and `install`, which are written for uv and pip later.
        disturbs: what else it may break or change, a sentence each.
        environment: variables to set; the value "" unsets one.
    """

    kind: str
    text: str
    requirements: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    disturbs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if (self.requirements or self.remove) and self.kind not in INSTALLING:
            raise ValueError(
                f"a change of kind {self.kind!r} installs or removes {', '.join((*self.requirements, *self.remove))}; "
                f"only {', '.join(INSTALLING)} do"
            )


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        id: what found it: a rule's id, or the name of a mechanism such as "missing-name".
        branch: "import/wrong_version": a branch and a twig of BRANCHES.
        level: one of LEVELS: an error stops something, a warning may, a note doesn't.
        confidence: 0 to 1, how often such a verdict is right.
        verdict: what is wrong, in one sentence with names and versions.
        evidence: what was seen, a line each, with its place.
        why: how that makes the failure, in one or two sentences.
        changes: ways to mend it, the smallest first; empty where none is known.
        not_this: the obvious answer that is wrong here and why; None where there is none.
        check: a command that fails before the change and passes after it.
        culprits: distributions at fault, the one to move first.
        source: where the knowledge is from: a URL, "declared metadata of 2026-11-28", "installed files"; and "(not
            confirmed)" where nobody has.
        gpu: whether only a machine with a GPU can show it.
        provable: Python source that fails before the change and passes after it, where one can be told.
    """

    id: str
    branch: str
    level: str
    confidence: float
    verdict: str
    evidence: tuple[str, ...] = ()
    why: str = ""
    changes: tuple[Change, ...] = ()
    not_this: str | None = None
    check: str | None = None
    culprits: tuple[str, ...] = ()
    source: str = ""
    gpu: bool = False
    provable: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The answer.

    Args:
        findings: the likeliest cause of the failure first; without a failure by level.
        ruled_out: what was looked for and is not so, a sentence each: what "I don't know" rests on.
        knowledge_date: date of the metadata that the answer rests on, "2026-11-28".
        notes: what the reader should know besides, a sentence each.
    """

    findings: tuple[Finding, ...] = ()
    ruled_out: tuple[str, ...] = ()
    knowledge_date: str = ""
    notes: tuple[str, ...] = ()
