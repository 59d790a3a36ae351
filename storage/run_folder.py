"""One run, one folder: artifacts/models/<model name>/runs/<run id>/."""

import contextlib
import glob
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from constants.renamed import former_names
from storage.errors import ResumeError
from storage.file_lock import FolderLock
from storage.files import TEMPORARY, output_errors, remove_temporaries, write_atomically, write_json
from storage.log_lines import LogFormatter
from storage.saved_run import run_age, trained_nothing, was_pruned


class _RunLog(logging.FileHandler):
    """train.log; on a full disk it stops with one warning, where logging would show a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        reason = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        logging.getLogger().warning(f"{self.baseFilename} can't be written any more: {reason}")


class RunFolder:
    """Paths of a run, and its log.

    Attributes:
        path: the run's folder.
        published: artifacts/models/<model name>/model.safetensors, the best weights of the newest finished run.
        shown: the folder of the run; `path` itself, unless this process is not the one that writes the run's files.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.shown = path
        self.published = path.parent.parent / "model.safetensors"
        self._log: logging.Handler | None = None
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._lock: FolderLock | None = None

    @property
    def id(self) -> str:
        """The run's name: its start, and a number where several started in one second."""
        return self.path.name

    @property
    def began(self) -> bool:
        """Whether it is that of an earlier process."""
        return (self.path / "config.ini").exists()

    def follow(self, shown: Path, rank: int) -> None:
        """Take the place of one of several processes that is not the main one: what it writes is thrown away.

        Its warnings and errors go to train.rank<rank>.log of the run.

        Args:
            shown: the run's folder.
            rank: number of this process, from 0; the main process has 0.
        """
        self.shown = shown
        self._log = _RunLog(shown / f"train.rank{rank}.log", encoding="utf-8", delay=True)
        self._log.setLevel(logging.WARNING)
        self._log.setFormatter(LogFormatter())
        logging.getLogger().addHandler(self._log)

    def lock(self) -> None:
        """Keep other processes from going on with this run while it is trained here.

        Raises:
            ResumeError: another process trains this run.
        """
        if self._lock is None:
            self._lock = FolderLock(self.path)
        if not self._lock.take():
            raise ResumeError(
                f"run {self.id} is being trained by another process. Wait for its end, or stop it; "
                "without --resume a new run starts."
            )

    def unlock(self) -> None:
        """Let other processes go on with this run."""
        if self._lock is not None:
            self._lock.release()

    @classmethod
    def create(cls, artifacts_dir: Path, model_name: str) -> "RunFolder":
        """Make a new folder; `mkdir` is atomic, so two runs started in one second get two.

        Raises:
            OutputError: it can't be made.
        """
        runs = artifacts_dir / "models" / model_name / "runs"
        started = time.strftime("%Y%m%d-%H%M%S")
        with output_errors(runs):
            runs.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = runs / (started if number == 1 else f"{started}-{number}")
            try:
                path.mkdir()
                return cls(path)
            except FileExistsError:
                number += 1
            except OSError:
                with output_errors(path):
                    raise

    @classmethod
    def throwaway(cls, model_name: str) -> "RunFolder":
        """Make a folder that goes with the process, for a dry run."""
        temporary = tempfile.TemporaryDirectory(prefix="menagerie-")
        folder = cls(Path(temporary.name) / "models" / model_name / "runs" / "dry-run")
        folder.path.mkdir(parents=True)
        folder._temporary = temporary
        return folder

    @classmethod
    def find(cls, artifacts_dir: Path, model_name: str, run: str) -> "RunFolder":
        """Find a run to go on with.

        Args:
            artifacts_dir: the folder of all runs and published models.
            model_name: name of the model's folder in artifacts/models; runs under a former name of the model are found
                too.
            run: `latest`, a run id, or a folder; `auto` is the latest, or a new one where there is none. What a sweep
                has pruned is not the latest: going on with it has to be asked for.

        Raises:
            ResumeError: there is no such run; the text lists those there are.
        """
        runs = artifacts_dir / "models" / model_name / "runs"
        names = [model_name, *(old.removesuffix("Trainer") for old in former_names(f"{model_name}Trainer"))]
        places = [artifacts_dir / "models" / name / "runs" for name in names]
        folders = [path for place in places for path in place.glob("*") if path.is_dir()]
        known = sorted((path for path in folders if not trained_nothing(path)), key=run_age)
        latest = next((path for path in reversed(known) if not was_pruned(path)), None)
        if run in ("latest", "auto") and latest is not None:
            return cls(latest)
        if run == "auto":
            return cls.create(artifacts_dir, model_name)
        ours = {path.resolve() for path in known}  # one that was killed early has no checkpoints
        for path in (*(place / run for place in places), Path(run)):
            if run != "latest" and (path.resolve() in ours or (path / "checkpoints").is_dir()):
                return cls(path.resolve())
        there = ", ".join(path.name for path in known[-5:]) or "none"
        group = " A group of seeds goes on with --seeds N --resume." if "seeds-" in run else ""
        raise ResumeError(
            f"no run '{run}' to resume in {runs}; runs there: {there}. Start one without --resume.{group}"
        )

    def file(self, name: str) -> Path:
        """Return the path of a file of the run; its folder exists then."""
        path = self.path / name
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run atomically."""
        write_json(self.file(name), content)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run atomically."""
        write_atomically(self.file(name), text.encode())

    def log_only(self, text: str, level: int = logging.ERROR) -> None:
        """Write to train.log what would be too much on the screen, or is there already."""
        if self._log is not None and level >= self._log.level:
            name = logging.getLevelName(level)
            self._log.emit(logging.makeLogRecord({"levelname": name, "levelno": level, "msg": text}))

    def publish(self) -> None:
        """Copy the best weights to where other trainers load them."""
        best = self.path / "model.safetensors"
        write_atomically(self.published, lambda temporary: shutil.copyfile(best, temporary), owner=self.id)

    def tidy(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        remove_temporaries(self.path)
        for path in self.published.parent.glob(f".*.{glob.escape(self.id)}{TEMPORARY}"):
            path.unlink(missing_ok=True)

    def open_log(self) -> None:
        """From here on every log line also goes to train.log, plain."""
        if self._log is None:
            with output_errors(self.path / "train.log"):
                self._log = _RunLog(self.path / "train.log", encoding="utf-8")
            self._log.setFormatter(LogFormatter())
            logging.getLogger().addHandler(self._log)

    def close_log(self) -> None:
        """Stop writing train.log."""
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            with contextlib.suppress(OSError):  # what is buffered can't be written on a full disk
                self._log.close()
            self._log = None

    def discard(self) -> None:
        """Remove the folder of a run that never began."""
        self.close_log()
        shutil.rmtree(self.path, ignore_errors=True)
