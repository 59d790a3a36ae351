"""What a run does outside of its state: each effect is done once, and a repeat of its node finds what came of it."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.files import write_json
from workflow.running.step_process import StepProcess, end_left_behind

_LOOK = 0.1  # seconds between two looks at a process
_REQUEST, _RESULT = "request.json", "result.json"


class EffectError(Exception):
    """An effect that can't be done or repeated; the text says why."""


class Effects:
    """The effects of a task's run.

    Args:
        folder: folder that holds them, one folder each.
        tell: called with each new line of a process's output.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell

    def place(self, key: str) -> Path:
        """Return the folder of an effect."""
        return self._folder / key

    def once(self, key: str, request: Mapping[str, Any], do: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Do an effect, or return what came of it when it was done.

        Args:
            key: its key: the run's name, the step and the node.
            request: what is asked for, JSON values. The same key with another request is refused.
            do: does it, given its folder; whatever it finds there is its own, left by a killed attempt. It returns the
                result, JSON values, to which the seconds of this and of earlier attempts are added as `seconds`.

        Returns:
            The result.

        Raises:
            EffectError: the key was used for another request.
        """
        place = self._folder / key
        place.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        asked = place / _REQUEST
        if asked.exists():
            before = json.loads(asked.read_text(encoding="utf-8"))
            if before["digest"] != digest:
                raise EffectError(
                    f"{place} holds what was asked for otherwise; was a file of the task changed by hand while it ran? "
                    f"`git diff` in {self._folder.parent.parent} shows it."
                )
        else:
            write_json(asked, {"digest": digest, "request": dict(request)}, durable=True)
        result = place / _RESULT
        if not result.exists():
            begin = time.monotonic()
            done = do(place)
            write_json(result, {**done, "seconds": round(time.monotonic() - begin, 3)}, durable=True)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found

    def process(
        self, place: Path, name: str, words: Sequence[str], environment: Mapping[str, str], folder: Path,
    ) -> tuple[int, str]:  # fmt: skip
        """Run a command to its end; one that a killed attempt has left behind is ended first.

        Args:
            place: folder of the effect, for its log.
            name: name of its files there.
            words: the command.
            environment: its environment variables.
            folder: folder that it runs in.

        Returns:
            Its exit code, and what it has printed in this attempt.
        """
        end_left_behind(place, name, None)
        log = place / f"{name}.log"
        process = StepProcess(tuple(words), folder, place, name, environment)
        with _stopped_on_error(process), _following(log, process.log_start, self._tell) as lines:
            while (code := process.code()) is None:
                next(lines)
                time.sleep(_LOOK)
            next(lines)
        with log.open("rb") as stream:
            stream.seek(process.log_start)
            return code, stream.read().decode("utf-8", "replace")


@contextmanager
def _stopped_on_error(process: StepProcess) -> Iterator[None]:
    try:
        yield
    except BaseException:  # Ctrl-C and SIGTERM too: it saves and leaves
        process.stop()
        raise


@contextmanager
def _following(path: Path, begin: int, tell: Callable[[str], None]) -> Iterator[Generator[None, None, None]]:
    """Tell the new whole lines of a file each time that the next is asked of what this yields."""

    def follow() -> Generator[None, None, None]:
        with path.open("rb") as stream:
            stream.seek(begin)
            rest = b""
            while True:
                *whole, rest = (rest + stream.read()).split(b"\n")
                for line in whole:
                    tell(line.decode("utf-8", "replace").rsplit("\r", 1)[-1])
                yield

    lines = follow()
    try:
        yield lines
    finally:
        lines.close()


def copied(source: Path, target: Path) -> None:
    """Copy a folder so that the copy is there whole or not at all.

    Args:
        source: the folder.
        target: the copy; what was there is replaced.
    """
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
