"""Plants faults in small tasks, lets them be tuned, and counts how often the debugger names the fault first.

`python bench/tune_faults.py` does 25 runs with a fault (5 faults, 5 seeds) and 5 without, about 12 minutes of one core;
`--faults few,rate --seeds 0,1` does some of them. Each line is a run, and is kept in `--out`, so that the
same command goes on where it was stopped.
"""

import argparse
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from agents.driver import Driver  # the checkout, wherever this is called from
from agents.new_task import make_folder
from agents.questions import Question
from agents.state import TuneState
from agents.task.folder import TaskFolder
from agents.task.rows import read_rows

NAMED = {
    "mislabelled": {"mislabelled"}, "duplicated_test_rows": {"test_rows_in_training"},
    "rate": {"learning_rate_too_high", "instability"}, "template": {"template_mismatch"}, "few": {"few_rows"},
    "healthy": set[str](),
}  # fmt: skip
"""What each fault is called by the debugger; numbers that are not finite are what a rate does that is far too high."""
_TRAIN, _TEST, _FEW = 220, 30, 30
_RATE = 2e-3
_TASKS: tuple[tuple[Mapping[str, str], str, tuple[str, ...]], ...] = (
    ({"good": "great lovely superb bright warm", "bad": "awful dreadful broken nasty dull",
      "plain": "usual common middling fair ordinary"},
     "film book meal room trip song game shop train coat lamp chair",
     ("The {t} was {w}.", "I found the {t} {w}, all in all.", "What a {w} {t}!", "My {t} is {w} today, I think.")),
    ({"billing": "invoice refund charge payment receipt", "technical": "crash error login screen update",
      "shipping": "parcel courier delivery address tracking"},
     "Monday Tuesday Wednesday Thursday Friday January March April June August October December",
     ("There is a question on the {w} of {t}.", "Since {t} my {w} is a mystery.", "Who looks after the {w}? It is {t}.",
      "Please see to the {w} before {t}.")),
)  # fmt: skip
_OTHER_TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] | upper + '] ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[ASSISTANT] ' }}{% endif %}"
)


def _rows(seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return rows to train on and to test with, of different questions."""
    numbers = random.Random(seed)
    words, things, forms = _TASKS[seed % len(_TASKS)]
    every = [{"prompt": form.format(t=thing, w=word), "completion": label} for label, those in words.items()
             for word in those.split() for thing in things.split() for form in forms]  # fmt: skip
    different = {re.sub(r"\W+", " ", row["prompt"].lower()): row for row in every}
    chosen = numbers.sample(sorted(different.values(), key=lambda row: row["prompt"]), _TRAIN + _TEST)
    return chosen[:_TRAIN], chosen[_TRAIN:]


def _plant(fault: str, seed: int, folder: Path) -> None:
    """Write a task with a fault into a folder."""
    numbers = random.Random(1000 + seed)
    train, test = _rows(seed)
    settings = {"epochs": "3", "learning_rate": f"{_RATE:g}", "seed": str(seed)}
    labels = sorted({row["completion"] for row in train})
    if fault == "mislabelled":
        for row in numbers.sample(train, len(train) // 5):
            row["completion"] = numbers.choice([label for label in labels if label != row["completion"]])
    elif fault == "duplicated_test_rows":
        train += numbers.sample(test, len(test) // 2)
        numbers.shuffle(train)
    elif fault == "rate":
        settings["learning_rate"] = f"{100 * _RATE:g}"
    elif fault == "few":
        train = train[:_FEW]
    elif fault == "template" and seed % 2:
        (folder / "other.jinja").write_text(_OTHER_TEMPLATE, encoding="utf-8")
        settings["template"] = str(folder / "other.jinja")
    elif fault == "template":
        train = [{**row, "prompt": f"### Instruction:\n{row['prompt']}\n### Response:"} for row in train]
    for name, rows in (("samples", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {"schema": 1, "name": "planted", "description": "Say of which kind it is.", "model": "tiny",
            "samples": "samples.jsonl", "test": "test.jsonl", "metric": "exact_match", "max_tokens": 12,
            "budget": {"rounds": 2, "minutes": 30}, "training": settings}  # fmt: skip
    (folder / "task.yaml").write_text(json.dumps(task), encoding="utf-8")


def _answer(question: Question) -> dict[str, str] | None:
    """Answer as the written rule does, up to the first change that is proposed."""
    if question.kind == "change" or question.title.startswith("Round 2"):
        return None
    return {field.name: field.default for field in question.fields}


def _labels(state: TuneState, made: TaskFolder, seed: int) -> dict[str, int]:
    """Count the rows that the proposal would take out, those of them that are wrong, and the labels that it offers."""
    meant = {row["prompt"]: row["completion"] for row in _rows(seed)[0]}
    rows = {row.id: row for row in read_rows(made.train_rows)}
    found = next((one for one in state["proposals"] if one["finding"] == "mislabelled"), None)
    drop, offered = (found.get("drop", []), found.get("relabel", {})) if found else ([], {})
    return {
        "taken_out": len(drop), "of_them_wrong": sum(rows[key].answer != meant[rows[key].question] for key in drop),
        "relabelled": len(offered),
        "relabelled_right": sum(answer == meant[rows[key].question] for key, answer in offered.items()),
    }  # fmt: skip


def _run(fault: str, seed: int) -> dict[str, object]:
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    folder = Path(tempfile.mkdtemp(prefix="tune_faults_"))
    try:
        _plant(fault, seed, folder)
        made = make_folder(folder / "task.yaml", None).folder
        state = Driver(made, lambda node, text: None).run(_answer, by_rule=False).state
        labels = _labels(state, made, seed) if fault == "mislabelled" else {}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = state["rounds"][0]
    found = [(one["name"], one["weight"]) for one in first.get("found", [])]
    return {
        "fault": fault, "seed": seed, "named_first": bool(found) and found[0][0] in NAMED[fault], "found": found,
        "evidence": [one["evidence"][0] for one in first.get("found", [])][:2],
        "score": first["measured"]["value"] if first["measured"] else None, **labels,
        "cpu": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip


def main() -> None:
    """Do the runs that are not there yet, and tell how often the fault was named first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(NAMED), help=f"some of {', '.join(NAMED)} (default: all)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="seeds (default: 0,1,2,3,4)")
    parser.add_argument("--out", type=Path, default=Path("tune_faults.jsonl"), help="file of what was done")
    arguments = parser.parse_args()
    wanted = [(fault, int(seed)) for seed in arguments.seeds.split(",") for fault in arguments.faults.split(",")]
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    done = {(one["fault"], one["seed"]): one for one in map(json.loads, lines)}
    for key in wanted:
        if key not in done:
            done[key] = _run(*key)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(done[key]) + "\n")
            sys.stdout.write(json.dumps(done[key]) + "\n")
            sys.stdout.flush()
    for fault in dict.fromkeys(fault for fault, _ in wanted):
        runs = [one for one in done.values() if one["fault"] == fault and (fault, one["seed"]) in wanted]
        right = sum(one["named_first"] for one in runs)
        firsts = ", ".join(one["found"][0][0] if one["found"] else "nothing" for one in runs)
        sys.stdout.write(f"{fault}: named first in {right} of {len(runs)} ({firsts})\n")


if __name__ == "__main__":
    main()
