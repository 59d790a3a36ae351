"""What a failed step is told as: what it was, where, why probably, and what to do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doctor.redaction import redact
from workflow.watching.trouble import Trouble

CONNECTION = 75
"""Exit code (EX_TEMPFAIL) by which a script says that it lost its connection."""
_FRAME = re.compile(r'^\s*File "(.+?)", line (\d+)', re.MULTILINE)
_TAIL = 200  # lines of a log that are looked at


@dataclass(frozen=True)
class Advice:
    """What is told of a failed step.

    Attributes:
        kind: name of the kind, such as "connection".
        what: what happened, a sentence with the error's own words.
        where: script, line and example; "" where none is known.
        cause: why, probably.
        recovery: what to do, a step each.
        passes: whether it passes by itself, so that waiting and beginning again helps.
    """

    kind: str
    what: str
    where: str
    cause: str
    recovery: tuple[str, ...]
    passes: bool = False


@dataclass(frozen=True)
class _Kind:
    name: str
    signs: str  # a regular expression, searched in the last lines
    cause: str
    recovery: tuple[str, ...]
    passes: bool = False


# The first that fits: the graver and the more special before the common.
_KINDS = (
    _Kind("disk", r"No space left on device|Disk quota exceeded|ENOSPC",
          "The disk is full; files are replaced whole, so what was finished is there.",
          ("Free some space, or move the project to a larger disk.",)),
    _Kind("quota", r"insufficient_quota|billing|payment required|\b402\b|credit balance|quota (?:was )?exceeded",
          "The account has no money or no quota left; waiting does not help.",
          ("Add credit, or raise the limit, in the account's settings.", "Or go on with a smaller preset.")),
    _Kind("rate", r"\b429\b|rate.?limit|too many requests|paused_rate_limit",
          "More was asked in a minute than the account may.",
          ("Wait a minute.", "Lower how many requests the script has under way at a time."), True),
    _Kind("key", r"api[_ ]key (?:is |must be |was )?(?:not set|missing|required|provided|invalid)|no api key|\b401\b|"
                 r"invalid[_ ]api[_ ]key|AuthenticationError|unauthori[sz]ed|\b403\b|PermissionDenied",
          "The service does not know the key, or none was given.",
          ("Write the key into .env, `TINKER_API_KEY=...`, and nowhere else.",
           "Keys are made in the service's console; a key that was deleted answers the same.")),
    _Kind("memory", r"out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|MemoryError|can't allocate memory|"
                    r"Cannot allocate memory|RESOURCE_EXHAUSTED",
          "What is computed at a time does not fit into the memory.",
          ("Halve the batch size in training_config.yaml, and double what is accumulated: the result is the same.",
           "Or shorten the longest examples, or take a smaller model.")),
    _Kind("nan", r"loss (?:is|became|=)\s*(?:nan|inf)|\bNaN\b.*loss|loss.*\bNaN\b|not finite",
          "The training has exploded: mostly the learning rate is too high, or an example has no token to learn from.",
          ("Go back: the last checkpoint before it is whole.",
           "Halve the learning rate in training_config.yaml; a warm-up of 20 steps helps as well.",
           "Look for examples whose answer is empty: the audit step counts them.")),
    _Kind("checkpoint", r"checkpoint.*(?:not (?:found|saved)|could not be saved|missing|is not there|no longer)|"
                        r"save_state.*(?:failed|error)|failed to save",
          "A checkpoint that was counted on is not there: it was never saved, has expired, or was deleted.",
          ("See which are there: `ls checkpoints`, or the service's list of checkpoints.",
           "Go on from the newest that is there; the script does so when its entry is taken out of the list.")),
    _Kind("module", r"ModuleNotFoundError|ImportError|DLL load failed|cannot open shared object file|undefined symbol",
          "The environment lacks a package, or has two that don't fit.",
          ("Install what requirements.txt names: `python -m pip install -r requirements.txt`.",)),
    _Kind("connection", r"APIConnectionError|ConnectionError|ConnectError|Connection (?:refused|reset|aborted)|"
                        r"ReadTimeout|ConnectTimeout|APITimeoutError|timed out|Temporary failure in name resolution|"
                        r"Network is unreachable|RemoteProtocolError|\b50[234]\b|ServiceUnavailable|"
                        r"Server disconnected",
          "The service could not be reached.",
          ("See whether it is there: its status page, or `serve.py` where it is yours.",
           "Nothing is lost: what was finished is on disk."), True),
    _Kind("data", r"JSONDecodeError|Expecting (?:value|property name|',' delimiter)|malformed|KeyError|"
                  r"UnicodeDecodeError|ParserError|missing (?:field|column|key)|invalid row",
          "A row of the data is not of the form that the script reads.",
          ("Look at the row that is named above; mend it, or leave it out.",
           "The step that explores the data shows which columns there are.")),
    _Kind("file", r"FileNotFoundError|No such file or directory",
          "A file that the script reads is not there, or is called otherwise.",
          ("Compare the name in the script with what the step before has made.",)),
)  # fmt: skip
_BUDGET = _Kind("budget", "", "What this workflow may cost is spent; the step was told to stop, so that it could save.",
                ("See what is still to do, and what it costs: `workflow.py plan`.",
                 "Give more: `--budget` with a higher bound. It goes on with what was saved."))  # fmt: skip
_STALL = _Kind("stall", "", "The service answers no longer, or the script waits for something that does not come.",
               ("See the end of its log, and whether the service is there: its status page, or `serve.py` where it is "
                "yours.",), True)  # fmt: skip
# What the runner stops a step for, by the kind that it is told as.
_TROUBLES = {"nan": "nan", "explosion": "nan", "disk": "disk", "stall": "stall", "budget": "budget"}
_UNKNOWN = _Kind("unknown", "", "The script's own error; its last lines are above.", ("Mend the script.",))


def advise(
    lines: Sequence[str], code: int, folder: Path, *, at: str = "", trouble: Trouble | None = None, own: str = ""
) -> Advice:  # fmt: skip
    """Say what a failed step is to be told as.

    Args:
        lines: what it printed.
        code: its exit code, 128 more than a signal's number.
        folder: the project's folder, whose scripts are meant by "where".
        at: how far it was, "example 1250 of 5000".
        trouble: what it was stopped for, where the runner stopped it; None where it ended by itself.
        own: what workflow.yaml says for its failure.
    """
    text = redact("\n".join(lines[-_TAIL:]))
    last = _last_error(text)
    kind = _named(_TROUBLES[trouble.kind]) if trouble is not None else _kind(text, code)
    what = (trouble.text if trouble is not None else last) or f"it ended with the exit code {code}"
    cause, recovery = kind.cause, kind.recovery
    if code == 137 and kind.name == "unknown":
        kind, what = _named("memory"), "it was killed (137)"
        cause = "The system ended it: mostly for want of memory, which its log shows (`dmesg | tail`)."
        recovery = kind.recovery
    elif code >= 128 and kind.name == "unknown":
        what, cause, recovery = f"a signal ended it ({code - 128})", "Somebody or something stopped it.", ()
    where = ", ".join(part for part in (_where(text, folder), at) if part)
    return Advice(
        kind.name, what, where, cause, (*((own,) if own else ()), *recovery), kind.passes or code == CONNECTION
    )


def _named(name: str) -> _Kind:
    return next(kind for kind in (*_KINDS, _BUDGET, _STALL) if kind.name == name)


def _kind(text: str, code: int) -> _Kind:
    if code == CONNECTION:
        return _named("connection")
    # The end of a log says more than its beginning: a warning there may be of another kind.
    end = "\n".join(text.splitlines()[-15:])
    for part in (_last_error(text), end, text):
        for kind in _KINDS:
            if re.search(kind.signs, part, re.IGNORECASE):
                return kind
    return _UNKNOWN


def _last_error(text: str) -> str:
    """Return the last line that names an error, with what follows its colon; the last line where none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("--- ")]
    named = [line for line in lines if re.match(r"(?:[\w.]*(?:Error|Exception|Interrupt|Exit)\b|error\b|fatal\b)", line,
                                                re.IGNORECASE)]  # fmt: skip
    return (named or lines or [""])[-1][:300]


def _where(text: str, folder: Path) -> str:
    """Return script and line of the deepest frame in the project's own files."""
    found = ""
    for name, line in _FRAME.findall(text):
        path = Path(name)
        own = (folder / path).resolve()
        if own.is_relative_to(folder.resolve()) and "site-packages" not in name and ".venv" not in own.parts:
            found = f"{own.relative_to(folder.resolve())}:{line}"
    return found
