"""The trainer: a round's training, up to its middle and then to its end."""

from pathlib import Path
from typing import Any

from agents.context import KILLED, KILLS, TuneContext, key_of
from agents.state import Trained, TuneState
from agents.task.settings import read_settings
from agents.trainers.trainer import Training
from storage.files import file_digest

_LEAST = 4  # epochs from which on a training is looked at half way


def train_first(context: TuneContext, state: TuneState) -> TuneState:
    """Train up to the middle of the epochs, or to the end where they are few."""
    planned = int(str(context.trainer.settings(context.folder.settings)["epochs"]))
    return _train(context, state, "train-first", planned // 2 if planned >= _LEAST else 0)


def train_rest(context: TuneContext, state: TuneState) -> TuneState:
    """Train from the middle to the end; nothing is done where there is no rest, or nobody wants it."""
    trained = state["trained"]
    if trained is None or trained["error"] or trained["epochs"] >= trained["planned"] or state["next"] == "stop_here":
        return TuneState()
    return _train(context, state, "train-rest", 0)


def _train(context: TuneContext, state: TuneState, node: str, until: int) -> TuneState:
    folder, number = context.folder, len(state["rounds"]) + 1
    settings = read_settings(folder.settings)
    request = {"round": number, "settings": settings, "rows": file_digest(folder.train_rows), "until": until}

    def do(place: Path) -> dict[str, Any]:
        work = folder.kept / "runs" / f"{state['thread']}-{number}"
        training, before, killed = Training(place, work, settings, folder.train_rows, until), -1, 0
        trained = context.trainer.train(training, context.process)
        # What somebody has killed goes on from its checkpoint; what dies again and again without an epoch is told, for
        # so does a process for which there is no memory.
        while trained["code"] == KILLED and killed < KILLS:
            killed = 0 if trained["epochs"] > before else killed + 1
            before = trained["epochs"]
            trained = context.trainer.train(training, context.process)
        run = Path(trained["run"])
        # Relative, so that a task's folder can be moved.
        kept = str(run.relative_to(folder.path)) if trained["run"] and run.is_absolute() else trained["run"]
        return {"trained": Trained(**{**trained, "run": kept})}

    done = context.effects.once(key_of(state, node), request, do)
    return TuneState(trained=done["trained"], step=state["step"] + 1, spent=state["spent"] + done["seconds"], next="")
