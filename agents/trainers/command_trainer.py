"""A trainer of the user's: a command that trains, answers and exports, in whatever environment it likes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.state import Trained
from agents.task.settings import SECTION, read_settings
from agents.trainers.trainer import ASKED, SAID, Process, Trainer, TrainerError, Training, failure_text
from storage.files import write_json

_METRICS = "metrics.json"
_OVER = "finished"
_MODEL = "model"


class CommandTrainer:
    """Fine-tunes by a command, which is called in three ways:

    `COMMAND train --settings FILE.json --rows FILE --work DIR --until N` trains, or goes on with what is in DIR, and
    keeps `DIR/metrics.json` up to date: `state` (`running`, `interrupted`, `finished`), `epochs`, `planned`, and
    `history`, by name the numbers of each epoch; `rows` may have `used` and `answer_tokens`, the tokens of all their
    answers. `COMMAND answer --model DIR --asked FILE --said FILE --max-tokens N`
    answers rows, and `COMMAND export --model DIR --out DIR` writes the model.

    Args:
        words: the command.
        answering: what answers and exports in its place, where the command leaves a model that our own tools read in
            `DIR/model`; None leaves it to the command.
    """

    section = SECTION

    def __init__(self, words: Sequence[str], answering: Trainer | None = None) -> None:
        self._words, self._answering = tuple(words), answering

    def settings(self, path: Path) -> Mapping[str, object]:
        """Return the settings of a file, as `Trainer.settings`, with what stands for others here."""
        return {"learning_rate": 5e-4, "epochs": 3, "batch_size": 8, **read_settings(path)}

    def train(self, training: Training, process: Process) -> Trained:
        """Train, or go on, as `Trainer.train`."""
        content, code, text = _read(training.work), 0, ""
        if not _is_done(content, training.until):
            settings = training.place / "settings.json"
            write_json(settings, dict(training.settings))
            training.work.mkdir(parents=True, exist_ok=True)
            code, text = process(training.place, "train", (
                *self._words, "train", "--settings", str(settings), "--rows", str(training.rows),
                "--work", str(training.work), "--until", str(training.until),
            ))  # fmt: skip
            content = _read(training.work)
        return Trained(
            run=str(training.work), epochs=int(content.get("epochs", 0)), planned=int(content.get("planned", 0)),
            history={name: list(values) for name, values in content.get("history", {}).items()},
            rows={name: int(count) for name, count in content.get("rows", {}).items()},
            error=failure_text(text, code) if code else "", code=code,
        )  # fmt: skip

    def answer(self, place: Path, model: str, max_tokens: int, process: Process) -> None:
        """Answer, as `Trainer.answer`."""
        if self._answering is not None:
            trained = Path(model) / _MODEL
            self._answering.answer(place, str(trained) if trained.is_dir() else model, max_tokens, process)
            return
        code, text = process(place, "answer", (
            *self._words, "answer", "--model", model, "--asked", str(place / ASKED), "--said", str(place / SAID),
            "--max-tokens", str(max_tokens),
        ))  # fmt: skip
        if code:
            raise TrainerError(f"{model} can't be asked: {failure_text(text, code)}")

    def export(self, place: Path, run: Path, out: Path, process: Process) -> None:
        """Export, as `Trainer.export`."""
        if self._answering is not None:
            shutil.copytree(run / _MODEL, out)
            return
        code, text = process(place, "export", (*self._words, "export", "--model", str(run), "--out", str(out)))
        if code:
            raise TrainerError(f"{run} can't be exported: {failure_text(text, code)}")


def _read(work: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((work / _METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainerError(f"{work / _METRICS} is no JSON: {error}") from None
    return content


def _is_done(content: dict[str, Any], until: int) -> bool:
    return content.get("state") == _OVER or 0 < until <= int(content.get("epochs", 0))
