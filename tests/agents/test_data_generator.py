"""More rows to train on: made of samples, by a model behind an address, by a command; checked, asked about, added."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from model_stub import model_stub
from tuning_tasks import ROOT, TRAINER, tune

pytest.importorskip("langgraph")

ORDERS = ROOT / "examples" / "tasks" / "orders.jsonl"
TEST = ROOT / "examples" / "tasks" / "orders_test.jsonl"
ASKED = "Write this order as JSON with name, item, quantity and city.\n"


def make_orders(folder: Path, generator: str, rows: int = 30) -> Path:
    """Make the folder of a task of few rows, with a trainer that learns by heart."""
    (folder / "samples.jsonl").write_text("".join(ORDERS.read_text().splitlines(keepends=True)[:rows]))
    (folder / "task.yaml").write_text(
        f"schema: 1\nname: orders\ndescription: Write an order as JSON.\nsamples: samples.jsonl\ntest: {TEST}\n"
        f"metric: json_fields\nbudget: {{rounds: 1}}\ntrainer: {sys.executable} {TRAINER}\n"
        f"training: {{epochs: 2, learning_rate: 0.5}}\ngenerator: {generator}\n"
    )
    done = tune("new", "task.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "orders"


def train_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "data" / "train.jsonl").read_text().splitlines()]


def made_rows(folder: Path) -> list[dict]:
    return [row for row in train_rows(folder) if "made_by" in row["origin"]]


def test_rows_of_samples_alone_are_asked_about_and_added(tmp_path):
    folder = make_orders(tmp_path, "{source: templates, rows: 40, seed: 3}")
    waits = tune("run", folder=folder)
    assert waits.returncode == 1 and "? More rows: change the rows?" in waits.stdout, waits.stderr
    for told in ("there are 30 rows to train on", "of which 40 can be used", "different words and pairs of words",
                 "by vary: ", "by new_cases: ", "by paraphrase: ", "40 training rows added"):  # fmt: skip
        assert told in waits.stdout, told
    assert not made_rows(folder)
    tune("answer", ".", "decision=accept", folder=folder)
    assert "? Round 1: train on 70 rows?" in tune("run", folder=folder).stdout
    made, samples = made_rows(folder), train_rows(folder)[:30]
    assert len(made) == 40 and {row["origin"]["way"] for row in made} == {"vary", "new_cases", "paraphrase"}
    names = {row["id"]: json.loads(row["messages"][-1]["content"])["name"] for row in samples}
    numbers = dict(zip((2, 3, 4, 5, 6, 8, 10, 12), ("two", "three", "four", "five", "six", "eight", "ten", "twelve"),
                       strict=True))  # fmt: skip
    for row in made:  # each field that a made row's answer has stands in its question
        asked, answer = row["messages"][-2]["content"], json.loads(row["messages"][-1]["content"])
        assert asked.startswith(ASKED) and answer["name"] in asked and answer["item"] in asked
        assert answer["city"] is None or answer["city"] in asked
        assert any(one in asked.lower() for one in (str(answer["quantity"]), numbers.get(answer["quantity"], "?")))
        assert row["origin"]["made_by"] == "templates" and set(row["origin"]["from"]) <= names.keys()
    told = subprocess.run(
        ["git", "log", "-1", "--format=%s%n%b"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("more_rows: training rows added") and "Data-Digest:" in told.stdout
    # The same seed makes the same rows, and --yes takes them too.
    other = tmp_path / "other"
    other.mkdir()
    again = make_orders(other, "{source: templates, rows: 40, seed: 3}")
    assert tune("run", "--yes", folder=again).returncode == 0
    assert [row["id"] for row in made_rows(again)] == [row["id"] for row in made]
    state = json.loads(tune("status", "--json", folder=again).stdout)["state"]
    assert state["applied"][0]["finding"] == "more_rows" and state["rounds"][0]["trained"]["rows"]["used"] == 70


def test_rows_that_a_person_refuses_are_not_made_again(tmp_path):
    folder = make_orders(tmp_path, "{rows: 10}")
    tune("run", folder=folder)
    tune("answer", ".", "decision=refuse", folder=folder)
    assert tune("run", "--yes", folder=folder).returncode == 0
    assert not made_rows(folder)
    assert len(list(folder.glob(".tune/effects/*-generate"))) == 1
    # With as many rows as are enough, none are made.
    plenty = tmp_path / "plenty"
    plenty.mkdir()
    folder = make_orders(plenty, "{rows: 10, few: 30}")
    assert "? Round 1: train on 30 rows?" in tune("run", folder=folder).stdout


def order(name: str, item: str, quantity: int, city: str, text: str) -> dict:
    answer = {"name": name, "item": item, "quantity": quantity, "city": city}
    return {"question": ASKED + text.format(**answer), "answer": json.dumps(answer)}


def test_a_model_behind_an_address_makes_rows_and_is_asked_nothing_twice(tmp_path, monkeypatch):
    leaked = json.loads(TEST.read_text().splitlines()[0])["messages"]
    known = json.loads(ORDERS.read_text().splitlines()[0])["messages"]
    bad = [
        {"question": leaked[0]["content"], "answer": leaked[1]["content"]},
        {"question": known[0]["content"], "answer": known[1]["content"]},
        {"question": f"{ASKED}Ship a rake.", "answer": "a rake"},
        {"question": f"{ASKED}Ship a hoe.", "answer": '{"tool": "hoe"}'},
    ]
    texts = (
        "{quantity} {item} shall go to {name}, whose home is {city}.",
        "Is it possible that {name} of {city} gets {item}, {quantity} of them?",
        "{city}! {name} longs for {item}: {quantity}.",
        "Bring {name} in {city} {quantity} {item}.",
    )
    numbers = iter(range(100))

    def said(messages: list[dict]) -> str:
        assert "Write an order as JSON." in messages[1]["content"] and "Examples:" in messages[1]["content"]
        number = next(numbers)
        if number == 1:
            return "Sure! ```json\n" + json.dumps(bad) + "\n```"
        if number == 2:
            return "I can't do that."
        mine = [order(f"Zoe Quist{number}{at}", f"wheels{at}{number}", 30 + number, f"Town{at}{number}", text)
                for at, text in enumerate(texts)]  # fmt: skip
        return "\n".join(map(json.dumps, mine)) if number % 2 else f"Here they are: {json.dumps(mine)}"

    with model_stub(said) as stub:
        place = f"{{address: '{stub.address}', model: maker, key: MAKER_KEY}}"
        folder = make_orders(tmp_path, f"{{endpoint: {place}, rows: 16, ways: [vary, hard_negatives]}}")
        monkeypatch.delenv("MAKER_KEY", raising=False)
        lacks = tune("run", folder=folder)
        assert lacks.returncode == 3 and "set the environment variable MAKER_KEY" in lacks.stderr
        monkeypatch.setenv("MAKER_KEY", "sk-secret-of-mine")
        refused = "Unsupported parameter: 'max_tokens' is not supported with this model."
        stub.failures[:] = [(503, "come again"), (429, "come again")]
        stub.most = 3
        stopped = tune("run", folder=folder)
        assert stopped.returncode == 3 and "refuses with status 400: enough" in stopped.stderr
        stub.most, stub.failures[:] = None, [(400, refused)]
        waits = tune("run", folder=folder)
        assert waits.returncode == 1, waits.stderr
        assert len(stub.asked) == 6  # for 16 rows and a third more, four at a time
        assert len({json.dumps(one["messages"]) for one in stub.asked}) == 6
        assert sum("max_completion_tokens" in one for one in stub.asked) == 1
        assert set(stub.keys) == {"Bearer sk-secret-of-mine"} and stub.asked[0]["model"] == "maker"
    for told in ("maker made 20 rows, of which 16 can be used", "1 row left out: each asks what a test row asks",
                 "1 row left out: each is there already", "1 row left out: each has an answer that is no JSON",
                 "1 row left out: each has JSON with other keys", "1 pieces of what came back are no row"):  # fmt: skip
        assert told in waits.stdout, (told, waits.stdout)
    tune("answer", ".", "decision=accept", folder=folder)
    assert "train on 46 rows" in tune("run", folder=folder).stdout
    assert {row["origin"]["made_by"] for row in made_rows(folder)} == {"maker"}
    kept = [path for path in folder.rglob("*") if path.is_file() and b"sk-secret-of-mine" in path.read_bytes()]
    assert not kept, "the key is in no file"


@pytest.mark.slow
def test_answers_that_came_before_a_kill_are_not_asked_for_again(tmp_path):
    go_on, numbers = threading.Event(), iter(range(100))

    def said(messages: list[dict]) -> str:
        number = next(numbers)
        if number >= 5:
            go_on.wait()
        text = "{name} of {city}: {item} {quantity}"
        return json.dumps([order(f"Zoe Quist{number}", f"wheels{number}", 30, "Lodz", text)])

    with model_stub(said) as stub:
        folder = make_orders(tmp_path, f"{{endpoint: {{address: '{stub.address}', model: maker}}, rows: 40, near: 1}}")
        process = subprocess.Popen([sys.executable, str(ROOT / "tune.py"), "run"], cwd=folder, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        kept: list[str] = []
        while len(kept) < 5:
            assert process.poll() is None
            files = list(folder.glob(".tune/effects/*-generate/generator-said.jsonl"))
            kept = files[0].read_text().splitlines() if files else []
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        go_on.set()
        assert "maker made 14 rows, of which 14 can be used" in tune("run", folder=folder).stdout
        asked = Counter(json.dumps(one["messages"]) for one in stub.asked)
    assert len(asked) == 14 and sum(times == 1 for times in asked.values()) >= 5  # eight were under way
    (path,) = folder.glob(".tune/effects/*-generate/generator-said.jsonl")
    assert path.read_text().splitlines()[:5] == kept


def test_a_command_makes_rows_and_what_it_has_made_is_not_made_again(tmp_path):
    (tmp_path / "maker.py").write_text(
        "import json, os, sys\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    if number == 2 and not os.path.exists('failed'):\n"
        "        open('failed', 'w').close()\n"
        '        sys.stdout.write(\'{"id": "torn\')\n'
        "        sys.exit('out of cheese')\n"
        "    asked = json.loads(line)\n"
        "    open('made.log', 'a').write(asked['id'] + '\\n')\n"
        "    name, item = 'Olaf ' + asked['id'], 'item' + asked['id']\n"
        "    answer = json.dumps({'name': name, 'item': item, 'quantity': 77, 'city': None})\n"
        f"    question = {ASKED!r} + name + ' has need of 77 ' + item\n"
        "    row = {'messages': [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]}\n"
        "    rows = {'rows': [row, {'question': 'x'}]}\n"
        "    text = {'text': 'Here: ' + json.dumps([{'question': question, 'answer': answer}])}\n"
        "    print(json.dumps({'id': asked['id'], **(text if '00003' in asked['id'] else rows)}), flush=True)\n"
    )
    folder = make_orders(tmp_path, f"{{command: {sys.executable} maker.py, rows: 12, ways: [new_cases], near: 1}}")
    stopped = tune("run", folder=folder)
    assert stopped.returncode == 3 and "maker.py ended with the exit code 1: out of cheese" in stopped.stderr
    waits = tune("run", folder=folder)
    assert "of which 4 can be used" in waits.stdout and "3 pieces of what came back are no row" in waits.stdout
    log = (folder / "made.log").read_text().splitlines()
    assert len(log) == len(set(log)) == 4


def test_mistakes_are_told_all_at_once(tmp_path):
    (tmp_path / "samples.jsonl").write_text(ORDERS.read_text())
    (tmp_path / "task.yaml").write_text(
        "schema: 1\nname: x\ndescription: d\nsamples: samples.jsonl\nmetric: judg\ntrainer: dpo\n"
        "generator:\n  source: templates\n  ways: [vary, hard_negatives, pharaphrase, documents]\n  rows: 0\n"
        "  near: 2\n  endpoint: {address: foo, model: x, key: 'sk-abc 123'}\n"
        "retrieve: 2\njudge: {labels: none.jsonl, choices: [a]}\n"
    )
    done = tune("new", "task.yaml", folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for line, text in (
        (5, "FILE.py:FUNCTION of your own; did you mean judge?"),
        (8, "makes questions with answers, and the trainer learns from pairs"),
        (9, "ways has hard_negatives, which templates can't make"), (9, "did you mean paraphrase?"),
        (9, "the task names none: `documents: FOLDER`"), (10, "rows is 0; the least is 1"),
        (11, "near is 2; it is a share, up to 1"), (12, "endpoint has no use where the source is templates"),
        (12, "address is 'foo'; needed is such as http://"), (12, "key is no name of an environment variable"),
        (13, "retrieve needs `documents`"), (14, "judge lacks the key endpoint"), (14, "labels is none.jsonl"),
        (14, "choices needs two different verdicts"),
    ):  # fmt: skip
        assert any(f"task.yaml:{line}:" in each and text in each for each in done.stderr.splitlines()), (line, text)
    assert "sk-abc" not in done.stderr, "what may be a key is not repeated"
