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

from constants import command
from constants.nearest import nearest
from constants.renamed import former_names, present_name
from storage.errors import ResumeError
from storage.file_lock import FolderLock
from storage.files import TEMPORARY, output_errors, remove_temporaries, write_atomically, write_json
from storage.log_lines import LogFormatter
from storage.run_label import labelled, names_given
from storage.run_parts import parts_of_others
from storage.saved_run import may_be_run, run_age, trainer_of, was_pruned

_PUBLISHED = "model.safetensors"
_LISTED = 5


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
        published: artifacts/models/<model name>/model.safetensors, the best weights of the newest finished run; None of
            one that lies elsewhere than in artifacts/models/<model name>/runs: nothing is written beside it.
        shown: the folder of the run; `path` itself, unless this process is not the one that writes the run's files.
    """

    def __init__(self, path: Path, published: Path | None = None) -> None:
        self.path = self.shown = path
        self.published = published
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
                return cls(path, runs.parent / _PUBLISHED)
            except FileExistsError:
                number += 1
            except OSError:
                with output_errors(path):
                    raise

    @classmethod
    def throwaway(cls, model_name: str) -> "RunFolder":
        """Make a folder that goes with the process, for a dry run."""
        temporary = tempfile.TemporaryDirectory(prefix="menagerie-")
        model = Path(temporary.name) / "models" / model_name
        folder = cls(model / "runs" / "dry-run", model / _PUBLISHED)
        folder.path.mkdir(parents=True)
        folder._temporary = temporary
        return folder

    @classmethod
    def of(cls, path: Path, artifacts_dir: Path, model_name: str) -> "RunFolder":
        """Return the folder of a run that exists, which publishes only where it really is one of the model's runs.

        Args:
            path: the run's folder.
            artifacts_dir: the folder of all runs and published models.
            model_name: name of the model's folder in artifacts/models; a former name's counts too.
        """
        homes = {place.resolve(): place for place in _places(artifacts_dir, model_name)}
        home = homes.get(path.parent.resolve()) or homes.get(path.resolve().parent)
        return cls(path, home.parent / _PUBLISHED if home is not None else None)

    @classmethod
    def find(cls, artifacts_dir: Path, model_name: str, run: str, trainer: str = "") -> "RunFolder":
        """Find a run to go on with.

        Args:
            artifacts_dir: the folder of all runs and published models.
            model_name: name of the model's folder in artifacts/models; runs under a former name of the model are found
                too.
            run: `latest`, a run id, the name that a run was given, or a folder; `auto` is the latest, or a new one
                where there is none. What is part of a sweep or of a group of seeds is not the latest: going on with it
                has to be asked for.
            trainer: class name of the trainer; runs of others are refused. Empty takes any.

        Raises:
            ResumeError: there is no such run, or it is another trainer's; the text says which there are.
        """
        path = find_resumable(artifacts_dir, model_name, run, trainer)
        return cls.create(artifacts_dir, model_name) if path is None else cls.of(path, artifacts_dir, model_name)

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
        """Copy the best weights to where other trainers load them; a run that lies elsewhere says that it doesn't."""
        best = self.path / _PUBLISHED
        if self.published is None:
            logging.getLogger().info(f"not published, as this run is none of artifacts_dir's: its weights are {best}")
            return
        write_atomically(self.published, lambda temporary: shutil.copyfile(best, temporary), owner=self.id)

    def tidy(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        remove_temporaries(self.path)
        if self.published is None:
            return
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


def find_resumable(artifacts_dir: Path, model_name: str, run: str, trainer: str) -> Path | None:
    """Find the folder of a run to go on with, as `RunFolder.find` does; None where `auto` finds none.

    Args:
        artifacts_dir: the folder of all runs and published models.
        model_name: name of the model's folder in artifacts/models.
        run: `latest`, a run id, a folder, or `auto`.
        trainer: class name of the trainer; empty takes any.

    Raises:
        ResumeError: there is no such run, or it is another trainer's.
    """
    places = _places(artifacts_dir, model_name)
    folders = [path for place in places for path in place.glob("*") if may_be_run(path)]
    newest_meant = run in ("latest", "auto")
    if not newest_meant and (found := _named(places, folders, run)):
        if _is_of_another(found, trainer):
            raise _of_another(found, trainer)
        return found
    known = sorted((path for path in folders if not _is_of_another(path, trainer)), key=run_age)
    if newest_meant:
        parts = parts_of_others(artifacts_dir, known)
        latest = next((path for path in reversed(known) if path.name not in parts and not was_pruned(path)), None)
        if latest is not None or run == "auto":
            return latest
        if known:
            newest = known[-1]
            raise ResumeError(
                f"no run '{run}' to resume in {places[0]}, only parts of others: {newest.name} is part of "
                f"{parts.get(newest.name, 'a sweep')}, which goes on with {_command_of(parts.get(newest.name))}. "
                f"`--resume {newest.name}` goes on with that one run; without --resume a new one starts."
            )
    there = ", ".join(path.name for path in known[-_LISTED:]) or "none"
    named = labelled(run, artifacts_dir) if run else []
    if named and named[0].parent.name == "runs":
        raise _of_another(named[0], trainer)
    near = None if named else nearest(run, names_given(artifacts_dir), cutoff=0.7)
    there += f"; did you mean {near}?" if near else ""
    is_group = bool(named) or "seeds-" in run
    group = f" A group of seeds goes on with --seeds N --resume {run}." if is_group else ""
    raise ResumeError(
        f"no run '{run}' to resume in {places[0]}; runs there: {there}{'' if near else '.'} Start one without "
        f"--resume.{group}"
    )


def _places(artifacts_dir: Path, model_name: str) -> list[Path]:
    """Return where a model's runs are: under its name, and under those that it once had."""
    names = [model_name, *(old.removesuffix("Trainer") for old in former_names(f"{model_name}Trainer"))]
    return [artifacts_dir / "models" / name / "runs" for name in names]


def _of_another(path: Path, trainer: str) -> ResumeError:
    other = trainer_of(path)
    return ResumeError(
        f"{path} is a run of {other}, not of {trainer}; "
        f"`{command('train')} {other.removesuffix('Trainer')} --resume {path}` goes on with it."
    )


def _is_of_another(path: Path, trainer: str) -> bool:
    return bool(trainer) and trainer_of(path) not in ("", present_name(trainer))


def _named(places: list[Path], folders: list[Path], run: str) -> Path | None:
    """Return the run folder that an id, a name or a path means; one that was killed early has no checkpoints."""
    known = {path.resolve() for path in folders}
    labels = [
        path for place in places for path in labelled(run, place.parents[2], place.parent.name) if path in folders
    ]
    for path in (*(place / run for place in places), *labels, Path(run).expanduser()):
        if path.resolve() in known or (path / "checkpoints").is_dir():
            return path.absolute()
    return None


def _command_of(part: str | None) -> str:
    return "`--seeds N --resume`" if part and "group" in part else "the command that began it"
