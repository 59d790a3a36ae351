"""The debugger's findings: planted faults are named, clean rows are not, and a change of rows is carried out once."""

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tuning_tasks import ROOT, TASK, tune

pytest.importorskip("langgraph")

from agents.driver import Driver
from agents.findings.evidence import Evidence, Losses, RowLoss
from agents.findings.finding_list import findings_of
from agents.findings.labels import doubted_labels
from agents.proposals import carry_out, diff_of, relabelling, told_of
from agents.questions import Question
from agents.state import Measured, Round, Trained
from agents.task.folder import TaskFolder
from agents.task.rows import TaskRow, read_rows, row_id
from agents.task.task_file import Task
from constants.counting import counted

WORDS = {"good": "great lovely superb bright", "bad": "awful nasty broken dull", "plain": "usual common fair middling"}
THINGS = ["film", "book", "meal", "room", "trip", "song", "game", "shop", "train", "coat"]
LABELS = sorted(WORDS)


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Questions, all different, and their labels."""
    every = [(f"{form} {thing} was {word}", label) for label, those in WORDS.items() for word in those.split()
             for thing in THINGS for form in ("The", "I say the")]  # fmt: skip
    return random.Random(seed).sample(every, count)


def written(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"prompt": asked, "completion": answer}) + "\n" for asked, answer in rows))


def planted(folder: Path, train: list[tuple[str, str]], test: list[tuple[str, str]]) -> Path:
    """Make the folder of a task of two rounds whose trainer learns by heart."""
    (folder / "task.yaml").write_text(
        TASK.replace("rounds: 3", "rounds: 2").replace("f1", "exact_match").replace("learning_rate: 0.05",
                                                                                    "learning_rate: 0.5")
    )  # fmt: skip
    written(folder / "samples.jsonl", train)
    written(folder / "test.jsonl", test)
    done = tune("new", "task.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "colours"


def test_test_rows_in_training_are_taken_out(tmp_path):
    rows = pairs(230)
    test = rows[210:]
    folder = planted(tmp_path, [*rows[:210], *((f"{asked.upper()}!", answer) for asked, answer in test[:8])], test)
    done = tune("run", "--yes", folder=folder)
    assert done.returncode == 0, done.stderr
    state = json.loads(tune("status", "--json", folder=folder).stdout)["state"]
    first, second = state["rounds"]
    assert first["found"][0]["name"] == "test_rows_in_training"
    assert first["found"][0]["evidence"][0].startswith("8 of 20 test rows ask what a training row asks")
    assert "test_rows_in_training" not in [one["name"] for one in second["found"]]
    (applied,) = state["applied"]
    assert applied["round"] == 2 and applied["told"] == ["8 training rows taken out"]
    kept = (folder / "data" / "train.jsonl").read_text().splitlines()
    assert len(kept) == 210 and not any("!" in line for line in kept)
    title = subprocess.run(["git", "log", "-1", "--format=%s%n%b", applied["commit"]], cwd=folder, capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    assert title.startswith("test_rows_in_training: 8 training rows taken out\n") and "Data-Digest: " in title
    assert "Changed for test_rows_in_training" in done.stdout
    assert "found test rows in training (0.97): 8 of 20 test rows" in tune("log", folder=folder).stdout


def test_a_person_sees_the_rows_that_go_and_may_refuse(tmp_path):
    rows = [(f"What of number {n}?", "yes" if n % 2 else "no") for n in range(60)]
    folder = planted(tmp_path, [*rows[:50], *rows[:5]], rows[50:])
    seen = []

    def answer(question: Question) -> dict[str, str]:
        """Refuse what changes, else do as the rule does."""
        seen.append(question)
        return {"decision": "refuse" if question.kind == "change" else question.fields[0].default}

    state = Driver(TaskFolder(folder), lambda node, text: None).run(answer, by_rule=False).state
    asked = next(one for one in seen if one.kind == "change")
    assert asked.title == "Duplicated rows: change the rows?"
    assert any(line.startswith("5 training rows taken out:\n- What of number") for line in asked.evidence)
    assert "and 1 more" in "\n".join(asked.evidence)
    assert state["rejected"][0] == "duplicated_rows" and state["applied"] == []
    assert len((folder / "data" / "train.jsonl").read_text().splitlines()) == 55


def test_a_person_may_relabel_rows_in_place_of_taking_them_out(tmp_path):
    """Where the words of all other rows speak for another label, and the model finds it likelier."""
    rows, wrong = pairs(200, 1), set(range(0, 200, 5))
    labelled = [(asked, LABELS[(LABELS.index(label) + 1) % 3] if number in wrong else label)
                for number, (asked, label) in enumerate(rows)]  # fmt: skip
    train = [row(*one) for one in labelled]
    doubted = doubted_labels(train)
    agrees = {one.id: answer for number, (one, answer) in enumerate(doubted) if number % 4}  # the model, of most
    own = losses(train, lambda one: 2.0 if train.index(one) in wrong else 0.1)
    others = {one.id: RowLoss(0.2 if one.id in agrees else 3.0, 5.0) for one, _ in doubted}
    found = findings_of(evidence(train, losses=replace(own, others=others)))[0]
    assert found["finding"] == "mislabelled"
    meant = {one.id: label for one, (_, label) in zip(train, rows, strict=True)}
    offered = found["relabel"]
    assert len(offered) >= 20 and set(offered) <= set(found["drop"]) and set(offered) <= set(agrees)
    assert sum(meant[key] == answer for key, answer in offered.items()) >= 0.9 * len(offered)
    # It is told as an offer, and carried out once, whatever is killed.
    folder = TaskFolder(planted(tmp_path, labelled, pairs(220, 2)[:20]))
    there = {one.id: one for one in read_rows(folder.train_rows)}
    (diff,) = [text for text in diff_of(found, list(there.values()), []) if "relabelled" in text]
    first, gone, come, *_ = diff.splitlines()
    assert first == f"or {len(offered)} training rows of them relabelled:"
    assert gone.startswith("- ") and come.startswith("+ ") and gone[2:].split(" => ")[0] == come[2:].split(" => ")[0]
    chosen, out = relabelling(found), len(found["drop"]) - len(offered)
    assert told_of(chosen) == [f"{counted(out, 'training row')} taken out",
                               f"{counted(len(offered), 'training row')} relabelled"]  # fmt: skip
    for _ in range(2):
        carry_out(folder, chosen, [])
        after = read_rows(folder.train_rows)
        changed = {one.question: one for one in after if "answer_before" in one.origin}
        assert len(after) == 200 - out and len(changed) == len(offered)
    assert all(changed[there[key].question].answer == answer for key, answer in offered.items())
    assert all(one.origin["answer_before"] != one.answer for one in changed.values())


def test_a_broken_environment_is_shown_to_the_doctor(tmp_path):
    rows = [(f"What of number {n}?", "yes" if n % 2 else "no") for n in range(60)]
    folder = planted(tmp_path, rows[:50], rows[50:])
    settings = folder / "training.ini"
    error = "libcudart.so.12: cannot open shared object file: No such file or directory"
    settings.write_text(f"{settings.read_text()}fails = {error}\n")
    done = tune("run", "--yes", folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"found environment fault (0.99): {error}" in done.stdout
    assert "Compiled code asks for libcudart.so.12, a library of CUDA 12" in done.stdout
    assert "nvidia-cuda-runtime-cu12" in done.stdout


# ------------------------------------------------------------------------------------------------------- one by one


def row(asked: str, answer: str, **more: dict[str, str]) -> TaskRow:
    messages = ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    return TaskRow(row_id(messages), messages, {}, **more)


def evidence(train: list[tuple[str, str]] | list[TaskRow], **more: object) -> Evidence:
    """What is known of a round that trained on these rows, and was good."""
    rows = [one if isinstance(one, TaskRow) else row(*one) for one in train]
    test = [row(asked + " today", answer) for asked, answer in pairs(40, seed=99)]
    history = {"train_loss": [2.0, 1.0, 0.8], "val_loss": [2.0, 1.0, 0.995]}
    trained = Trained(run="run", epochs=3, planned=3, history=history, rows={"used": len(rows)}, error="", code=0)
    measured = Measured(key="", value=0.9, scores=[1.0] * len(test), scale=1.0, cut_off=0.0)
    settings = {"learning_rate": 1e-3, "epochs": 3, "batch_size": 8, "max_length": 0, "template": None}
    given = {"losses": None, "settings": settings, "trained": trained, "measured": measured, "test": test, **more}
    last = Round(number=1, settings={}, commit="", trained=given["trained"], measured=given["measured"], gain=None,
                 against_best=None, kept=True)  # fmt: skip
    task = Task(name="t", description="", samples=Path())
    return Evidence(task, given["settings"], last, None, rows, given["test"], given["losses"])


def names(found: Evidence) -> list[str]:
    return [one["finding"] for one in findings_of(found)]


def losses(rows: list[TaskRow], of: Callable[[TaskRow], float], base: float = 5.0) -> Losses:
    return Losses(
        {one.id: RowLoss(of(one), base) for one in rows}, [RowLoss(3.0, 3.0)] * 16, template="the model's own"
    )


def test_clean_rows_have_no_finding():
    clean = evidence(pairs(220))
    assert names(clean) == []
    assert names(evidence(pairs(220), losses=losses(list(clean.train), lambda one: 0.1))) == []


@pytest.mark.parametrize("count", [30, 60, 100, 220])
def test_clean_labels_are_not_doubted(count):
    for seed in range(5):
        assert "mislabelled" not in names(evidence(pairs(count, seed)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_losses", [False, True])
def test_wrong_labels_are_found_row_by_row(seed, with_losses):
    rows = pairs(200, seed)
    numbers = random.Random(seed)
    wrong = set(numbers.sample(range(200), 40))
    train = [row(asked, numbers.choice([one for one in LABELS if one != label]) if number in wrong else label)
             for number, (asked, label) in enumerate(rows)]  # fmt: skip
    # As a model that has not learned by heart: sure of what is right, in doubt of what is wrong.
    known = losses(train, lambda one: 2.0 if train.index(one) in wrong else 0.1) if with_losses else None
    first = findings_of(evidence(train, losses=known))[0]
    assert first["finding"] == "mislabelled"
    planted_ids = {train[number].id for number in wrong}
    hit = len(planted_ids & set(first["drop"]))
    assert hit >= 34 and len(first["drop"]) - hit <= 4
    assert "have an answer that the words of all other rows" in first["evidence"][0]


def test_answers_of_other_rows_are_found_by_their_losses():
    train = [row(f"Say {word} {n} as a captain", f"Aye, {word} it is, number {n}") for n, word in enumerate(THINGS * 5)]
    swapped = {one.id: [RowLoss(1.5, 5.0)] * 3 for one in train}
    wrong = {one.id for one in train[:10]}
    known = Losses({one.id: RowLoss(1.6 if one.id in wrong else 0.4, 5.0) for one in train}, (), swapped, "")
    found = next(one for one in findings_of(evidence(train, losses=known)) if one["finding"] == "mislabelled")
    assert set(found["drop"]) == wrong
    # Where nothing was learned yet, half of the answers suit others better, and nothing is said.
    half = {one.id: RowLoss(1.4 if n % 2 else 1.6, 5.0) for n, one in enumerate(train)}
    assert "mislabelled" not in names(evidence(train, losses=Losses(half, (), swapped, "")))


def marked(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"### Instruction:\n{asked}\n### Response:", answer) for asked, answer in rows]


def trained(**more: object) -> Trained:
    return Trained(**{"run": "run", "epochs": 3, "planned": 3, "history": {}, "rows": {"used": 200}, "error": "",
                      "code": 0, **more})  # fmt: skip


@pytest.mark.parametrize(("name", "seen"), [
    ("few_rows", evidence(pairs(30))),
    ("template_mismatch", evidence(marked(pairs(220)))),
    ("template_mismatch", evidence(pairs(220), settings={"template": "other.jinja", "learning_rate": 1e-3},
                                   losses=Losses(template="another"))),
    ("imbalanced", evidence([one for n, one in enumerate(pairs(240)) if one[1] != "bad" or n < 10])),
    ("duplicated_rows", evidence([*(row(*one) for one in pairs(210)), *(
        TaskRow(f"{n}", row(*one).messages, {}) for n, one in enumerate(pairs(210)[:60]))])),
    ("truncated_rows", evidence(pairs(220), trained=trained(rows={"used": 150, "too_long": 70}))),
    ("answers_cut_off", evidence(pairs(220), measured=Measured(
        key="", value=0.1, scores=[0.1] * 40, scale=1.0, cut_off=0.4))),
    ("forgetting", evidence(pairs(220), losses=Losses(general=[RowLoss(4.0, 3.0)] * 16))),
    ("learning_rate_too_high", evidence(pairs(220), losses=Losses({"x": RowLoss(6.0, 5.0)}))),
    ("learning_rate_too_high", evidence(pairs(220), trained=trained(history={"train_loss": [3.0, 4.0]}))),
    ("instability", evidence(pairs(220), trained=trained(error="the loss is not finite at step 3"))),
    ("out_of_memory", evidence(pairs(220), trained=trained(error="CUDA out of memory"))),
    ("environment_fault", evidence(pairs(220), trained=trained(
        error="libcudart.so.12: cannot open shared object file: No such file or directory"))),
    ("overfitting", evidence(pairs(220), trained=trained(
        history={"train_loss": [2.0, 1.0, 0.2], "val_loss": [2.0, 1.0, 1.5]}))),
    ("underfitting", evidence(pairs(220), trained=trained(
        history={"train_loss": [2.0, 1.5, 1.0], "val_loss": [2.0, 1.5, 1.0]}))),
])  # fmt: skip
def test_each_fault_is_named_first(name, seen):
    first = findings_of(seen)[0]
    assert first["finding"] == name
    assert first["evidence"] and first["expected"] and 0 < first["weight"] <= 1


def test_the_cost_follows_from_epochs_and_rows():
    seen = evidence(pairs(220), trained=trained(history={"train_loss": [2.0, 1.0], "val_loss": [2.0, 1.0]}))
    (found,) = findings_of(Evidence(**{**vars(seen), "minutes": 3.0}))
    assert found["finding"] == "underfitting" and found["minutes"] == 6.0


@pytest.mark.slow
def test_planted_faults_in_real_trainings(tmp_path):
    """Two of the runs of bench/tune_faults.py: a rate that is far too high, and wrong labels."""
    import sys

    out = tmp_path / "runs.jsonl"
    subprocess.run([sys.executable, str(ROOT / "bench" / "tune_faults.py"), "--faults", "mislabelled,rate", "--seeds",
                    "0", "--out", str(out)], check=True, capture_output=True)  # fmt: skip
    runs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["named_first"] for one in runs] == [True, True], runs
