"""Our own trainers: a training is a process of train.py, which goes on from its checkpoint."""

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.state import Trained
from agents.task.rows import read_rows
from agents.task.settings import checked, write_settings
from agents.trainers.losses import LOSSES, ROWS
from agents.trainers.trainer import ASKED, SAID, Process, TrainerError, Training, failure_text
from config import ConfigError
from config.agent_trainer_config import AgentTrainerConfig
from config.language_config import LanguageConfig
from config.language_model_trainer_config import LanguageModelTrainerConfig
from config.preference_trainer_config import PreferenceTrainerConfig
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from evaluation.text_metrics import METRICS
from storage.files import write_atomically
from storage.saved_run import RunDamagedError, read_metrics

_STOPPED = 143  # exit code of a run that was asked to stop, and has saved
_OVER = ("finished", "early_stopped")


_AGENT = "agents.trainers.reward_agent:answer"
_TRAINERS: dict[str, tuple[str, type[LanguageConfig]]] = {
    "sft": ("LanguageModel", LanguageModelTrainerConfig), "dpo": ("Preference", PreferenceTrainerConfig),
    "agent": ("Agent", AgentTrainerConfig),
}  # fmt: skip


class OwnTrainer:
    """Fine-tunes by `python train.py`: LanguageModel, Preference or Agent.

    Args:
        kind: `sft`, `dpo` or `agent`; another is taken for `sft`.
        metric: the task's metric, the reward of `agent` where there is no other.
        max_tokens: most tokens of an answer.
        reward: FILE.py:FUNCTION that gives the reward of `agent`; "" for the metric.
    """

    def __init__(self, kind: str = "sft", metric: str = "chrf", max_tokens: int = 128, reward: str = "") -> None:
        self._kind = kind if kind in _TRAINERS else "sft"
        self._name, self._config = _TRAINERS[self._kind]
        self._metric, self._max_tokens, self._reward = metric, max_tokens, reward
        script = (str(PACKAGE_ROOT / "train.py"),) if IS_CHECKOUT else ("-m", "menagerie", "train")
        self._train = (sys.executable, *script)

    def settings(self, path: Path) -> Mapping[str, object]:
        """Return the settings of a file, as `Trainer.settings`."""
        if self._kind == "agent" and not self._reward and self._metric not in METRICS:
            raise ConfigError(
                [f"the metric {self._metric} is no reward by itself: name one, `trainer: {{kind: agent, reward: "
                 "FILE.py:FUNCTION}}`, called with an answer and its row"]
            )  # fmt: skip
        return {"batch_size": 1, **vars(checked(path, self._config))}

    @property
    def section(self) -> str:
        """Name of the section of training.ini."""
        return f"{self._name}Trainer"

    def train(self, training: Training, process: Process) -> Trained:
        """Train, or go on, as `Trainer.train`."""
        found = _newest_run(training.work)
        code, text = 0, ""
        if found is None or not _is_done(found[1], training.until):
            settings = training.place / "training.ini"
            write_settings(settings, training.settings, self.section)
            stop = f"train.callbacks:StopAfterEpoch({training.until})" if training.until else ""
            code, text = process(training.place, "train", (
                *self._train, self._name, "--config", str(settings), "--resume", "auto",
                f"artifacts_dir={training.work}", *self._data(training), f"callbacks={stop}",
            ))  # fmt: skip
            found = _newest_run(training.work)
        error = failure_text(text, code) if code not in (0, _STOPPED) else ""
        if found is None:
            return Trained(run="", epochs=0, planned=0, history={}, rows={}, error=error or text[-2000:], code=code)
        run, content = found
        history = {name: list(values) for name, values in content.get("history", {}).items()}
        data = content.get("summary", {}).get("train_data", {})
        return Trained(
            run=str(run), epochs=len(history.get("train_loss", [])), planned=_epochs_of(run), history=history,
            rows=_rows_of(data, self._kind == "sft" and training.settings.get("train_on", "answers") == "answers"),
            error=error, code=code,
        )  # fmt: skip

    def _data(self, training: Training) -> tuple[str, ...]:
        """Return the words that give the rows; an agent's are tasks, with what their reward needs."""
        if self._kind != "agent":
            return (f"train_data={training.rows}",)
        tasks = training.work / "tasks.jsonl"
        if not tasks.exists():  # they are the run's, and stay as they are when it is gone on with
            beside = {"metric": self._metric, "max_tokens": self._max_tokens, "reward": self._reward}
            rows = [{"id": row.id, "messages": row.asked, "wanted": row.answer, **beside}
                    for row in read_rows(training.rows)]  # fmt: skip
            training.work.mkdir(parents=True, exist_ok=True)
            write_atomically(tasks, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        return (f"tasks={tasks}", f"agent={_AGENT}")

    def answer(self, place: Path, model: str, max_tokens: int, process: Process) -> None:
        """Answer by `train.py --chat`, as `Trainer.answer`."""
        words = (*self._train, "--chat", model, "temperature=0", f"max_tokens={max_tokens}")
        shell = f"exec {shlex.join(words)} < {shlex.quote(str(place / ASKED))} > {shlex.quote(str(place / SAID))}"
        code, text = process(place, "answer", ("sh", "-c", shell))
        if code:
            raise TrainerError(f"{model} can't be asked: {failure_text(text, code)}")

    def losses(self, place: Path, run: Path, words: bool, process: Process) -> str:
        """Measure rows by `train.py --losses`, as `TellsLosses.losses`."""
        asked = ("attribution=32", "attention=on") if words else ()
        code, text = process(place, "losses", (
            *self._train, "--losses", str(run), f"data={place / ROWS}", "--out", str(place / LOSSES), "--force",
            "compare=on", *asked,
        ))  # fmt: skip
        if code:
            raise TrainerError(f"{run} tells no losses: {failure_text(text, code)}")
        told = [line for line in text.splitlines() if line.startswith("{")]
        return str(json.loads(told[-1])["template"]) if told else ""

    def export(self, place: Path, run: Path, out: Path, process: Process) -> None:
        """Export by `train.py --export`, as `Trainer.export`."""
        code, text = process(place, "export", (*self._train, "--export", str(run), "--out", str(out)))
        if code:
            raise TrainerError(f"{run} can't be exported: {failure_text(text, code)}")


def _rows_of(account: Mapping[str, Any], of_answers: bool) -> dict[str, int]:
    """Return how many rows were used, left out, and left out because they were too long; and their answers' tokens."""
    left_out = account.get("rows_left_out", {})
    long = sum(count for reason, count in left_out.items() if reason.startswith("longer than max_length"))
    found = {"used": int(account.get("rows_used", 0)), "left_out": sum(left_out.values()), "too_long": long}
    return {**found, "answer_tokens": int(account.get("trained_tokens", 0))} if of_answers else found


def _newest_run(work: Path) -> tuple[Path, dict[str, Any]] | None:
    for run in sorted(work.glob("models/*/runs/*"), reverse=True):
        try:
            return run, read_metrics(run)
        except (RunDamagedError, OSError):
            continue  # killed before its first epoch was over
    return None


def _is_done(content: dict[str, Any], until: int) -> bool:
    epochs = len(content.get("history", {}).get("train_loss", []))
    return content["state"] in _OVER or (content["state"] == "interrupted" and 0 < until <= epochs)


def _epochs_of(run: Path) -> int:
    found = re.search(r"^epochs\s*=\s*(\d+)", (run / "config.ini").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0
