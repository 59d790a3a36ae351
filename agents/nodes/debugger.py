"""The debugger: looks at the round that is over, and says what it suffered from and what may be changed."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.findings.environment import failed_by_environment
from agents.findings.evidence import Evidence, Losses, RowLoss, labels_of
from agents.findings.finding_list import findings_of
from agents.findings.labels import doubted_labels
from agents.proposals import added_rows, is_new
from agents.state import Finding, Round, Trained, TuneState
from agents.task.rows import TaskRow, question_digest, read_rows, relabelled, write_rows
from agents.trainers.losses import LOSSES, ROWS, TellsLosses
from agents.trainers.trainer import TrainerError
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT

_MEASURED = 300  # training rows whose losses are measured at most, evenly spread
_SWAPPED, _ANSWERS = 100, 3  # of which so many are asked with so many answers of other rows
_GENERAL = Path(__file__).resolve().parent.parent / "findings" / "general.jsonl"


def find_faults(context: TuneContext, state: TuneState) -> TuneState:
    """Say what the last round suffered from, the surest first."""
    *earlier, last = state["rounds"]
    train, test = read_rows(context.folder.train_rows), read_rows(context.folder.test_rows)
    losses, advice, seconds = _looked(context, state, last["trained"], train)
    kept = state.get("seconds", [])
    minutes = kept[-1] / 60 if len(kept) == len(state["rounds"]) + 1 else None
    found = findings_of(Evidence(
        context.task, context.trainer.settings(context.folder.settings), last, state["baseline"], train, test, losses,
        advice, minutes,
    ))  # fmt: skip
    tried = {pair for each in state["rounds"] for pair in each["settings"].items()}
    fresh = [one for one in found if one["finding"] not in state["rejected"]
             and is_new(one, tried, train, added_rows(context.effects, one))]  # fmt: skip
    told = [Finding(name=one["finding"], evidence=one["evidence"], weight=round(one["weight"], 3)) for one in found]
    looked: Round = {**last, "found": told}
    return TuneState(proposals=fresh, rounds=[*earlier, looked], step=state["step"] + 1, spent=state["spent"] + seconds)


def _looked(
    context: TuneContext, state: TuneState, trained: Trained, rows: Sequence[TaskRow]
) -> tuple[Losses | None, str, float]:
    """Fetch what findings need beside the state: losses of rows, or the doctor's advice; and the seconds it took."""
    trainer = context.trainer
    asks_doctor = failed_by_environment(trained["error"])
    if not asks_doctor and (trained["error"] or not trained["run"] or not isinstance(trainer, TellsLosses)):
        return None, "", 0.0

    def do(place: Path) -> dict[str, Any]:
        if asks_doctor or not isinstance(trainer, TellsLosses):
            return {"advice": _advice(context, place, trained["error"])}
        asked = _asked(rows)
        write_rows(place / ROWS, [row for _, row in asked])
        try:
            template = trainer.losses(place, context.folder.path / trained["run"], False, context.process)
        except TrainerError as error:  # without them there is still the rest to look at
            return {"error": str(error)}
        return {"kinds": [kind for kind, _ in asked], "template": template}

    done = context.effects.once(key_of(state, "debug"), {"run": trained["run"], "error": trained["error"]}, do)
    losses = _read(context.effects.place(key_of(state, "debug")), done) if "kinds" in done else None
    return losses, done.get("advice", ""), done["seconds"]


def _asked(rows: Sequence[TaskRow]) -> list[tuple[str, TaskRow]]:
    """Return the rows to be measured, each with what it is for: `row`, `general`, `other` label, or `swap`."""
    chosen = list(rows)[:: -(-len(rows) // _MEASURED)]
    asked = [("row", row) for row in chosen]
    asked += [("general", row) for row in read_rows(_GENERAL)]
    asked += [("other", replace(relabelled(row, answer), id=row.id)) for row, answer in doubted_labels(rows)]
    if not labels_of(rows) and len(chosen) > _ANSWERS:
        for number, row in enumerate(chosen[:_SWAPPED]):
            others = [chosen[(number + 1 + step * len(chosen) // (_ANSWERS + 1)) % len(chosen)]
                      for step in range(_ANSWERS)]  # fmt: skip
            asked += [("swap", TaskRow(row.id, (*row.messages[:-1], other.messages[-1]), {})) for other in others
                      if other.answer != row.answer and question_digest(other) != question_digest(row)]  # fmt: skip
    return asked


def _read(place: Path, done: dict[str, Any]) -> Losses:
    """Return what was measured, by what it is for."""
    measured = [json.loads(line) for line in (place / LOSSES).read_text(encoding="utf-8").splitlines()]
    ids = [json.loads(line)["id"] for line in (place / ROWS).read_text(encoding="utf-8").splitlines()]
    own: dict[str, RowLoss] = {}
    others: dict[str, RowLoss] = {}
    general: list[RowLoss] = []
    swapped: dict[str, list[RowLoss]] = {}
    for kind, key, one in zip(done["kinds"], ids, measured, strict=True):
        if "loss" not in one:
            continue
        found = RowLoss(one["loss"], one["base_loss"], one.get("tokens", 1))
        if kind == "row":
            own[key] = found
        elif kind == "general":
            general.append(found)
        elif kind == "other":
            others[key] = found
        else:
            swapped.setdefault(key, []).append(found)
    return Losses(own, general, swapped, done["template"], others)


def _advice(context: TuneContext, place: Path, error: str) -> str:
    """Ask the doctor about an error of the environment."""
    log = place / "error.txt"
    log.write_text(f"{error}\n", encoding="utf-8")
    doctor = (str(PACKAGE_ROOT / "doctor.py"),) if IS_CHECKOUT else ("-m", "menagerie", "doctor")
    _, text = context.process(place, "doctor", (sys.executable, *doctor, "--traceback", str(log)))
    return text.strip()


def facts_of_data(context: TuneContext) -> list[str]:
    """Say what is wrong with the rows themselves, a sentence each."""
    train, test = read_rows(context.folder.train_rows), read_rows(context.folder.test_rows)
    told = []
    asked = {question_digest(row) for row in train}
    leaked = sum(question_digest(row) in asked for row in test)
    if leaked:
        told.append(f"{leaked} of {len(test)} test rows ask what a training row asks: their scores say too much")
    doubled = len(train) - len({(question_digest(row), row.answer) for row in train})
    if doubled:
        told.append(f"{doubled} of {len(train)} training rows are there twice")
    if len(test) < 30:
        told.append(f"{len(test)} test rows give wide intervals; 100 and more tell small gains")
    return told
