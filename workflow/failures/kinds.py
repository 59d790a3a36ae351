"""The kinds of failures: by which words each is known, why it happens, and what helps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of failure.

    Attributes:
        name: its name.
        signs: a regular expression, searched in the lines that name the error.
        cause: why it happens, probably.
        recovery: what to do, a step each. {batch}, {rate} and {requests} stand for the settings of that meaning.
        passes: whether it passes by itself, so that waiting and beginning again helps.
    """

    name: str
    signs: str
    cause: str
    recovery: tuple[str, ...]
    passes: bool = False


def _status(*numbers: int) -> str:
    """Return a regular expression for status codes of HTTP, which are not any number of these figures."""
    return rf"(?:http|status|code|error)\w*\b[^\n\d]{{0,20}}(?:{'|'.join(map(str, numbers))})\b"


# The first that fits: the graver and the more special before the common.
KINDS = (
    Kind("row", r"^error: \S+\.(?:jsonl|ndjson|json|csv|tsv|yaml|py):\d+: ",
         "What stands in that line is not as it must be.",
         ("Mend that line as the error says; what was finished is kept.",)),
    Kind("disk", r"No space left on device|Disk quota exceeded|ENOSPC",
         "The disk is full; files are replaced whole, so what was finished is there.",
         ("Free some space, or move the project to a larger disk: `df -h .` and `du -sh *` show what is where.",)),
    Kind("quota", rf"insufficient_quota|billing|payment required|{_status(402)}|credit balance|"
                  r"quota (?:was |is )?exceeded|exceeded your (?:current )?quota|out of credits|"
                  r"insufficient (?:funds|credit)",
         "The account has no money or no quota left; waiting does not help.",
         ("Add credit, or raise the limit, in the console of the service.",
          "Or go on with a smaller preset; `workflow.py plan` says what each costs.")),
    Kind("checkpoint", r"checkpoint.*(?:not (?:found|saved)|could not be saved|missing|is not there|no longer|expired)|"
                       r"save_(?:state|weights)\w*.*(?:failed|refused|error)|failed to save|could not save|"
                       r"(?:PermissionError|NotADirectoryError|FileExistsError|IsADirectoryError|Read-only file system)"
                       r".*checkpoint",
         "A checkpoint was not written, or one that was counted on is gone: what came after the last would be lost.",
         ("See which are there: `ls -la checkpoints`, or the service's list, where they may have expired.",
          "See that the folder of checkpoints is a folder and may be written, and that its disk is not full.",
          "It goes on from the newest one that is there.")),
    Kind("rate", rf"{_status(429)}|rate.?limit|too many requests|paused_rate_limit",
         "More was asked in a minute than the account may.",
         ("Wait a minute; it is begun again by itself.", "Lower {requests}."), True),
    Kind("key", r"api[_ ]key\b.{0,40}(?:not set|missing|required|not provided|must be|invalid|incorrect|malformed)|"
                rf"no api key|(?:invalid|incorrect|missing)[_ ]api[_ ]key|AuthenticationError|unauthori[sz]ed|"
                rf"PermissionDenied(?:Error)?\b|KeyError: '\w*(?:KEY|TOKEN)'|{_status(401, 403)}",
         "The service does not know the key, or none was given.",
         ("Make a key in the console of the service; one that was deleted, or copied in part, is refused like this.",
          "Write it into .env and nowhere else: `TINKER_API_KEY=tml-...`",)),
    Kind("memory", r"out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|MemoryError|can't allocate memory|"
                   r"Cannot allocate memory|RESOURCE_EXHAUSTED|std::bad_alloc|Unable to allocate",
         "What is computed at a time does not fit into the memory.",
         ("Halve {batch}; where batches are accumulated, double that, and the result is the same.",
          "Or shorten the longest examples, or take a smaller model.",
          "See what else takes memory: `free -h`, and on a GPU `nvidia-smi`.")),
    Kind("nan", r"loss (?:is|was|became|=)\s*(?:nan|inf|not finite)|\bNaN\b.*loss|loss.*\bNaN\b|not finite|non-finite",
         "The training has exploded: mostly the learning rate is too high, or an example has no token to learn from.",
         ("Halve {rate}; a warm-up of some steps helps as well.",
          "Look for examples whose answer is empty: the audit of the data counts them.",
          "The last checkpoint before it is whole; with another learning rate the training begins anew.")),
    Kind("module", r"ModuleNotFoundError|ImportError|DLL load failed|cannot open shared object file|undefined symbol|"
                   r"invalid ELF header|file too short|GLIBC(?:XX)?_[\d.]+' not found|wrong ELF class",
         "The environment lacks a package, or has two that don't fit.",
         ("Install what the project's requirements.txt names.",)),
    Kind("connection", r"APIConnectionError|ConnectionError|ConnectError|Connection (?:refused|reset|aborted)|"
                       r"ConnectionRefusedError|ConnectionResetError|RemoteDisconnected|IncompleteRead|BrokenPipeError|"
                       r"ReadTimeout|ConnectTimeout|APITimeoutError|TimeoutError|timed out|Network is unreachable|"
                       r"Temporary failure in name resolution|Name or service not known|RemoteProtocolError|"
                       rf"{_status(500, 502, 503, 504, 529)}|ServiceUnavailable|Server disconnected|Bad Gateway",
         "The service could not be reached, or did not answer.",
         ("See whether it is there, by its status page or that of `serve.py`, and whether this machine is online.",
          "Nothing is lost: what was finished is on disk."), True),
    Kind("data", r"JSONDecodeError|Expecting (?:value|property name|',' delimiter|':' delimiter)|Unterminated string|"
                 r"Extra data|malformed|KeyError|UnicodeDecodeError|ParserError|_csv\.Error|no JSON|"
                 r"(?:missing|lacks|no) (?:the )?(?:field|column|key)|invalid row",
         "A row of the data is not of the form that the script reads.",
         ("Mend the row, or leave it out; the step that explores the data shows which columns there are.",)),
    Kind("file", r"FileNotFoundError|No such file or directory",
         "A file that the script reads is not there, or is called otherwise.",
         ("Compare the name in the script with what the step before has made.",)),
    Kind("write", r"PermissionError|Read-only file system|IsADirectoryError|NotADirectoryError|FileExistsError",
         "Something is in the way of a file that is written, or the folder may not be written.",
         ("See what is there, and whose it is: `ls -la`.",)),
)  # fmt: skip
_OTHERS = (
    Kind("budget", "", "What this workflow may cost is spent; the step was told to stop, so that it could save.",
         ("See what is still to do, and what it costs: `workflow.py plan`.",
          "Give more: `--budget` with a higher bound. It goes on with what was saved.")),
    Kind("stall", "", "The service answers no longer, or the script waits for something that does not come.",
         ("See the end of its log, and whether the service is there: its status page, or `serve.py` if it is yours.",),
         True),
    Kind("killed", "", "The system ended it: mostly for want of memory, which its log shows (`dmesg | tail`).",
         next(kind.recovery for kind in KINDS if kind.name == "memory")),
    Kind("signal", "", "Somebody or something stopped it.", ()),
    Kind("unknown", "", "The script's own error; its last lines are above.", ("Mend the script.",)),
)  # fmt: skip


def kind_named(name: str) -> Kind:
    """Return the kind of a name."""
    return next(kind for kind in (*KINDS, *_OTHERS) if kind.name == name)
