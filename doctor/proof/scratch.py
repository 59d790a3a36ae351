"""A scratch environment: folders of its own, and code that runs in it sees nothing of the user's and no network."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from doctor.child_process import Ran, run_command
from doctor.proof.error_lines import error_lines
from doctor.proof.outcome import Outcome
from doctor.redaction import redact

_KEPT = (
    "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "WINDIR", "OMP_NUM_THREADS",
    "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE", "NIX_LD", "NIX_LD_LIBRARY_PATH",
)  # fmt: skip
# Nobody listens there: what asks the network fails at once, as it does without one.
_NOWHERE = "http://127.0.0.1:9"
_SHOWN = 6000  # characters of an output that an outcome keeps


class Deadline:
    """When all must be over.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, 0 where it is over."""
        return max(0.0, self._end - time.monotonic())

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began


@contextmanager
def scratch_folder(beside: Path, cache: str | None) -> Iterator[Path]:
    """Make a folder that is gone afterwards, however that ends.

    Args:
        beside: folder that it is made in where temporary files lie on another disk than the installer's cache, from
            which it can only link on its own disk.
        cache: folder of that cache; None where not known.
    """
    place = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        if cache and os.path.isdir(cache) and os.stat(place).st_dev != os.stat(cache).st_dev:
            beside.mkdir(parents=True, exist_ok=True)
            if os.stat(beside).st_dev == os.stat(cache).st_dev:
                place = str(beside)
    folder = Path(tempfile.mkdtemp(prefix="doctor-proof-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_environment(folder: Path, settings: Sequence[tuple[str, str]] = ()) -> Mapping[str, str]:
    """Return the variables for code that is tried: nothing of the user's but the language and the system's own.

    Args:
        folder: the scratch folder: home, caches and temporary files lie in it.
        settings: variables that a change sets; the value "" unsets one.
    """
    home = folder / "home"
    temporary = folder / "tmp"
    for each in (home, temporary):
        each.mkdir(exist_ok=True)
    made = {name: os.environ[name] for name in _KEPT if name in os.environ}
    binaries = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    made["PATH"] = os.pathsep.join((str(binaries), os.environ.get("PATH", os.defpath)))
    made |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "TORCH_HOME",
                           "MPLCONFIGDIR", "APPDATA", "LOCALAPPDATA"), str(home))  # fmt: skip
    made |= dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(temporary))
    made |= dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), _NOWHERE
    )
    made |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")  # what talks to itself may
    made |= {
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "WANDB_MODE": "disabled",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONNOUSERSITE": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1",
        "VIRTUAL_ENV": str(folder / "venv"),
    }  # fmt: skip
    for name, value in settings:
        made.pop(name, None)
        if value:
            made[name] = value
    return made


def scratch_python(folder: Path) -> str:
    """Return the interpreter of a scratch folder's environment."""
    return str(folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


def run_code(folder: Path, timeout: float, settings: Sequence[tuple[str, str]] = ()) -> tuple[Outcome, Ran]:
    """Run the code of a scratch folder, `code/provable.py`, in a folder that is empty each time.

    Returns:
        How it went, and the process itself for the log.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    environment = clean_environment(folder, settings)
    ran = run_command(
        (scratch_python(folder), str(folder / "code" / "provable.py")), timeout, cwd=str(work), environment=environment
    )
    output = redact(ran.output.replace(str(folder), "SCRATCH"))
    text = output if len(output) <= _SHOWN else f"...\n{output[-_SHOWN:]}"
    return Outcome(ran.passed, ran.code, error_lines(output), text, round(ran.seconds, 2)), ran
