"""Documents that a task names: read, found by words and by vectors, put in front of questions, made into rows."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from model_stub import model_stub
from tuning_tasks import TRAINER, tune

pytest.importorskip("langgraph")

GUIDE = """# The mill

## Stones

A millstone is a round stone that grinds the grain to flour. It weighs
as much as two oxen.

## Sails

The sails are the arms that the wind turns. In a storm they are tied.
"""
PAGE = """<html><head><title>x</title><style>p {}</style></head><body><h1>Bakery</h1>
<p>The oven is heated with beech wood since 1802.</p><script>var oven = 1;</script>
<ul><li>Rye bread takes two hours.</li></ul></body></html>"""
ASKED = ("What is a millstone?", "What turns the sails?", "How is the oven heated?", "How long does rye bread take?",
         "Is the zebra striped?", "What grinds the grain?")  # fmt: skip


def make_task(folder: Path, lines: str) -> tuple[Path, str]:
    """Make a folder of a task of six questions; return it, and what `new` said."""
    rows = [json.dumps({"prompt": asked, "completion": f"answer {number}"}) for number, asked in enumerate(ASKED)]
    (folder / "samples.jsonl").write_text("\n".join(rows))
    (folder / "task.yaml").write_text(
        "schema: 1\nname: mill\ndescription: Answer about the mill.\nsamples: samples.jsonl\nmetric: f1\n"
        f"test_share: 0.5\nbudget: {{rounds: 1}}\ntrainer: {sys.executable} {TRAINER}\n"
        f"training: {{epochs: 1, learning_rate: 0.5}}\n{lines}"
    )
    done = tune("new", "task.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "mill", done.stdout


def rows_of(folder: Path) -> dict[str, dict]:
    """Return all rows by the last line of what they ask."""
    rows = [json.loads(line) for name in ("train", "test")
            for line in (folder / "data" / f"{name}.jsonl").read_text().splitlines()]  # fmt: skip
    return {row["messages"][0]["content"].rsplit("\n", 1)[-1]: row for row in rows}


def write_documents(folder: Path) -> None:
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "bakery.html").write_text(PAGE)
    (folder / "notes.txt").write_text("Nothing here but weather.\n")
    (folder / "plan.pdf").write_bytes(b"%PDF-1.4 broken")
    (folder / "picture.png").write_bytes(b"\x89PNG")


def test_passages_stand_in_front_of_each_question_with_their_sources(tmp_path):
    write_documents(tmp_path / "papers")
    folder, told = make_task(tmp_path, "documents: papers\nretrieve: 1\n")
    assert "found by words (BM25)" in told and "plan.pdf is left out: " in told and "picture.png is left out" in told
    rows = rows_of(folder)
    stone = rows["What is a millstone?"]
    assert stone["messages"][0]["content"] == (
        "[1] A millstone is a round stone that grinds the grain to flour. It weighs as much as two oxen.\n\n"
        "What is a millstone?"
    )
    assert stone["origin"]["passages"] == ['guide.md, "Stones", line 5']
    oven = rows["How is the oven heated?"]
    assert "beech wood" in oven["messages"][0]["content"] and "var oven" not in oven["messages"][0]["content"]
    assert oven["origin"]["passages"] == ['bakery.html, "Bakery", line 2']
    assert "tied" in rows["What turns the sails?"]["messages"][0]["content"]
    assert tune("run", "--yes", folder=folder).returncode == 0
    # Documents that are gone keep nobody from reading what came of the run.
    (tmp_path / "papers").rename(tmp_path / "moved")
    for word in ("status", "log"):
        told_later = tune(word, folder=folder)
        assert told_later.returncode == 0 and f"missing: {tmp_path / 'papers'}, where the doc" in told_later.stdout, (
            word
        )
    assert "where the documents were" in json.loads(tune("status", "--json", folder=folder).stdout)["missing"][0]
    assert "papers, which is not there" in tune("new", "task.yaml", "late", folder=tmp_path).stderr
    # A folder without a document that can be read is refused, with the reason.
    (tmp_path / "empty").mkdir()
    (tmp_path / "task.yaml").write_text((tmp_path / "task.yaml").read_text().replace("papers", "empty"))
    refused = tune("new", "task.yaml", "other", folder=tmp_path)
    assert refused.returncode == 2 and "has no document that can be read" in refused.stderr


def test_rows_are_made_of_what_documents_define(tmp_path):
    write_documents(tmp_path / "papers")
    folder, _ = make_task(tmp_path, "documents: papers\nretrieve: 1\ngenerator: {ways: [documents], rows: 5}\n")
    (tmp_path / "papers").rename(tmp_path / "moved")
    gone = tune("run", folder=folder)
    assert gone.returncode == 2 and "where the documents were, is not there" in gone.stderr, gone.stderr
    (tmp_path / "moved").rename(tmp_path / "papers")
    waits = tune("run", folder=folder)
    # The millstone is asked about already, and the oven's sentence defines nothing.
    assert "by documents: What are the sails? => The sails are the arms" in waits.stdout, waits.stdout
    assert "1 training row added" in waits.stdout
    tune("answer", ".", "decision=accept", folder=folder)
    tune("run", folder=folder)
    made = rows_of(folder)["What are the sails?"]
    assert made["messages"][1]["content"] == "The sails are the arms that the wind turns."
    assert made["origin"]["documents"] == ['guide.md, "Sails", line 10'] == made["origin"]["passages"]
    assert made["messages"][0]["content"].startswith("[1] The sails are the arms")


def test_a_database_and_a_command_are_looked_up_too(tmp_path):
    with sqlite3.connect(tmp_path / "mill.db") as connection:
        connection.execute("CREATE TABLE parts (id INTEGER, name TEXT, body TEXT)")
        connection.executemany("INSERT INTO parts VALUES (?, ?, ?)",
                               [(7, "millstone", "grinds grain"), (8, "sail", "catches wind")])  # fmt: skip
    query = "SELECT id, name, body FROM parts"
    folder, _ = make_task(tmp_path, f"documents: {{database: mill.db, query: '{query}'}}\nretrieve: 1\n")
    found = rows_of(folder)["What is a millstone?"]
    assert found["origin"]["passages"] == ['mill.db, "millstone", id 7']
    assert found["messages"][0]["content"].startswith("[1] name: millstone; grinds grain")
    (tmp_path / "web.py").write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    text = 'of ' + asked['question']\n"
        "    found = [{'text': text, 'source': 'https://mill.example'}] * 3\n"
        "    print(json.dumps({'id': asked['id'], 'passages': found}))\n"
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "web.py").write_text((tmp_path / "web.py").read_text())
    folder, _ = make_task(other, f"documents: {{search: {sys.executable} web.py}}\nretrieve: 2\n")
    zebra = rows_of(folder)["Is the zebra striped?"]
    assert zebra["origin"]["passages"] == ["https://mill.example"] * 2
    assert zebra["messages"][0]["content"] == (
        "[1] of Is the zebra striped?\n\n[2] of Is the zebra striped?\n\nIs the zebra striped?"
    )
    (tmp_path / "task.yaml").write_text((tmp_path / "task.yaml").read_text().replace("FROM parts", "FROM party"))
    refused = tune("new", "task.yaml", "third", folder=tmp_path)
    assert refused.returncode == 2 and "no such table: party; the query is" in refused.stderr


def test_vectors_find_what_words_do_not(tmp_path):
    def said(messages: list[dict]) -> str:
        text = messages[-1]["content"].lower()
        return json.dumps([float("zebra" in text or "weather" in text), float("mill" in text), 0.1])

    write_documents(tmp_path / "papers")
    with model_stub(said) as stub:
        place = f"{{address: '{stub.address}', model: vectors}}"
        folder, told = make_task(tmp_path, f"documents: {{folder: papers, embedding: {place}}}\nretrieve: 1\n")
    assert "and by vectors of vectors" in told
    assert rows_of(folder)["Is the zebra striped?"]["origin"]["passages"] == ["notes.txt, line 1"]
