"""HTML reports of saved runs: what is in them, that they are whole HTML, and that nothing in a run's files can act."""

import base64
import hashlib
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.report import write_report
from storage.saved_run import load_run

ROOT = Path(__file__).resolve().parent.parent.parent
VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
ENVIRONMENT = {
    "command": ["/usr/bin/python", "train.py", "Alpha", "epochs=3", f"note={EVIL}"], "working_directory": EVIL,
    "git": {"commit": "878259a59c45b05b45b339e7842b113af5209ab3", "diff": f"+ {EVIL}\n- old\n", "untracked": [EVIL]},
    "python": "3.11.7", "packages": {"torch": "2.13.0", EVIL: "1.0"},
    "device": {"type": "cpu", "name": EVIL, "threads": 2},
    "data": {"train": {"length": 64, "sample": EVIL, "sha256": "924e8645f476a0e8"}},
}  # fmt: skip
FAILURE = {
    "schema_version": 1, "trainer": "AlphaTrainer", "split": "train", "epoch": 4, "step_of_epoch": 3, "step": 33,
    "finding": {"kind": "layer", "text": EVIL}, "first_bad_layer": f"layer2 {EVIL}", "losses": ["nan"],
    "layers": [{"name": "layer1", "type": "Linear", "output": {"norm": 1.0, "max": 2.0, "finite": True, "values": "x"}},
               {"name": "layer2", "type": EVIL, "output": {"norm": None, "max": None, "finite": False, "values": EVIL}},
               {"name": "ids", "type": "Embedding", "output": None}],
    "gradients": [{"name": EVIL, "norm": 1.5, "max": 0.5, "finite": True, "values": "y"}],
}  # fmt: skip


def make_run(artifacts: Path, run_id: str = "20260101-000000", epochs: int = 12, val: bool = True, **changes) -> Path:
    folder = artifacts / "models" / "Alpha" / "runs" / run_id
    folder.mkdir(parents=True)
    draw = random.Random(run_id)
    history = {"train_loss": [1 / (2 + epoch) + 0.01 * draw.random() for epoch in range(epochs)]}
    if epochs == 12:
        history["learning_rate"] = [1e-3] * epochs
    if val and epochs:
        history |= {"val_loss": [loss + 0.05 for loss in history["train_loss"]], "val_epoch": [*range(1, epochs + 1)]}
    best = {"epoch": epochs, "val_loss": min(history["val_loss"])} if val and epochs else None
    readings = {"step": [], "step_of_epoch": [], "train_loss": []}
    for epoch in range(epochs):
        for step in (5, 10):
            row = (10 * epoch + step, step, history["train_loss"][epoch] * (1 if step == 10 else 1.1))
            for values, value in zip(readings.values(), row, strict=True):
                values.append(value)
    content = {
        "schema_version": 1, "trainer": "AlphaTrainer", "run_id": run_id, "state": "finished", "best": best,
        "summary": {"epochs": epochs, "steps": 10 * epochs, "seconds": 71.0, "steps_per_second": 3.5,
                    "parameters": 1234, "score": 0.75, "score_low": 0.5, "score_high": 0.875},
        "history": history, "readings": readings,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content | changes))
    (folder / "config.ini").write_text("[AlphaTrainer]\nepochs = 3\nbatch_size = 32\n")
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT | {"git": None, "command": ["python", "train.py"]}))
    (folder / "train.log").write_text("".join(f"line {number}\n" for number in range(50)))
    return folder


class Page(HTMLParser):
    """A page taken apart: fails where an element is not closed or is closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> is no HTML"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data


def report(run: Path, *others: Path) -> Page:
    file = write_report([load_run(path) for path in (run, *others)], run / "report.html")
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Page]:
    """Reports of a good run, a failed one full of evil names, one without validation, one of nothing, and two runs."""
    folder = tmp_path_factory.mktemp("reports")
    evil = {EVIL: [0.5] * 3, "train_loss": [0.5] * 3}
    bad = make_run(folder / "bad", epochs=3, readings={}, state="failed", error=f"TrainingError: {EVIL}\n  try: this")
    content = json.loads((bad / "metrics.json").read_text())
    content["summary"] |= {EVIL: EVIL}
    (bad / "metrics.json").write_text(json.dumps(content | {"trainer": f"Alpha{EVIL}Trainer", "history": evil}))
    (bad / "config.ini").write_text(f"[AlphaTrainer]\nepochs = 3\nnote = {EVIL}\n")
    (bad / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (bad / "train.log").write_text(f"\x1b[31m{EVIL}\x00\n")
    (bad / "failure").mkdir()
    (bad / "failure/report.json").write_text(json.dumps(FAILURE))
    (bad / "rankings.json").write_text(json.dumps({"tasks": {
        f"{EVIL} $x$ {number}": {"scores": [3, 2, 1, 0], "accuracy": [0.9, 0.7, 0.8, 0.1]} for number in range(3)
    }}))  # fmt: skip
    good = make_run(folder / "good")
    return {
        "good": report(good),
        "evil": report(bad),
        "not validated": report(make_run(folder / "young", epochs=2, val=False, state="running", readings={})),
        "nothing": report(make_run(folder / "empty", epochs=0, val=False, state="failed", error="OSError: full")),
        "two": report(*(make_run(folder / "two", f"2026010{day}-000000", epochs=2) for day in (1, 2))),
    }


@pytest.mark.parametrize("name", ["good", "evil", "not validated", "nothing", "two"])
def test_a_page_stands_alone_and_can_do_nothing(pages, name):
    page = pages[name]
    assert {"script", "link", "iframe", "form", "base", "object", "embed"} & {tag for tag, _ in page.tags} == set()
    assert [tag for tag, _ in page.tags].count("style") == 1
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
        for key in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(key) or "#"
            assert address.startswith(("#", "data:image/png;base64,")), (tag, attributes)
    policy = next(part["content"] for tag, part in page.tags if part.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


def test_the_policy_allows_the_page_s_own_style_sheet(pages):
    (sheet,) = re.findall(r"<style>(.*?)</style>", pages["good"].source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert f"style-src &#x27;sha256-{digest}&#x27;" in pages["good"].source


@pytest.mark.parametrize("name", ["good", "evil", "two"])
def test_ids_are_unique_and_all_that_is_pointed_at_is_there(pages, name):
    ids = [attributes["id"] for _, attributes in pages[name].tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = {part["href"][1:] for _, part in pages[name].tags if part.get("href", "").startswith("#")}
    pointed |= {found for _, part in pages[name].tags for value in part.values()
                for found in re.findall(r"url\(#([^)]+)\)", value or "")}  # fmt: skip
    pointed |= {part["aria-labelledby"] for _, part in pages[name].tags if "aria-labelledby" in part}
    assert pointed and pointed <= set(ids)


def test_what_a_run_s_files_hold_is_shown_as_text(pages):
    page = pages["evil"]
    assert page.text.count("<script>alert(1)</script>") > 15
    assert "\x1b" not in page.text and "\x00" not in page.text and "\N{REPLACEMENT CHARACTER}[31m" in page.text


def test_pictures_are_readable_text_and_named(pages):
    svgs = [part for tag, part in pages["good"].tags if tag == "svg"]
    assert [part["aria-label"] for part in svgs] == [
        "Loss, by epoch", "Training loss by step, by step",
    ]  # fmt: skip
    assert all(part["role"] == "img" for part in svgs)
    assert re.search(r"best: 0\.1\d+ at epoch 12", pages["good"].text), "text of a picture is text"


def test_the_good_run_s_numbers(pages):
    text, rows = pages["good"].text, pages["good"].rows
    assert "Alpha 20260101-000000 finished started 2026-01-01 00:00:00" in text
    assert "at epoch 12 last val_loss" in text and "epochs 12 of 3 steps 120" in text
    assert ["score", "0.75", "0.5 to 0.875"] in rows
    assert ["epoch", "train_loss", "val_loss", "learning_rate"] in rows
    assert len([row for row in rows if len(row) == 4 and row[0].isdecimal() and row[3] == "0.001"]) == 12
    assert "line 49" in text and "30 lines before these" in text


def test_a_failed_run_tells_why(pages):
    page = pages["evil"]
    assert "What went wrong TrainingError: </pre>" in page.text and "try: this" in page.text
    assert ["step of the run", "33"] in page.rows
    assert ["ids", "Embedding", "", "", "no floating-point output"] in page.rows
    assert "What went wrong" not in pages["good"].text
    assert "OSError: full" in pages["nothing"].text and "Plots" not in pages["nothing"].text


def test_a_run_without_validation_says_so(pages):
    assert "best val_loss - not validated yet" in pages["not validated"].text


def test_two_runs_are_compared(pages):
    page = pages["two"]
    assert "2 runs of AlphaTrainer" in page.text
    assert "20260101-000000 against 20260102-000000" in page.text
    assert "train_loss differs from epoch 1 on" in page.text
    assert "training loss by step: first differs in steps 1 to 5" in page.text


def test_settings_that_were_changed_stand_out(tmp_path):
    """Against config.ini as it is, and by the command line; a section that the project doesn't have is told."""
    run = make_run(tmp_path, epochs=0)
    (run / "environment.json").write_text(json.dumps({"command": ["python", "train.py", "Alpha", "epochs=3"]}))
    page = report(run)
    assert ["epochs", "3", "set on the command line"] in page.rows
    assert "the project has no section [AlphaTrainer] to compare the others with" in page.text
    (run / "config.ini").write_text("[ModelAutoEncoderTrainer]\nepochs = 3\nbatch_size = 512\nold_key = 1\n")
    changed = [row for row in report(run).rows if row[0] in ("epochs", "batch_size", "old_key")]
    assert ["epochs", "3", "set on the command line; config.ini: 40"] in changed
    assert ["old_key", "1", "no such key now"] in changed and ["batch_size", "512", ""] in changed


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("environment.json", "{", "cannot read .*environment.json"),
        ("environment.json", '{"device": 3}', "cannot read .*environment.json"),
        ("config.ini", b"\xff\xfe", "cannot read .*config.ini"),
        ("rankings.json", '{"tasks": 3}', "cannot read .*rankings.json"),
        ("autoencoder.npz", "no zip", "cannot read .*autoencoder.npz"),
        ("failure/report.json", "[]", "cannot read .*report.json"),
    ],
)
def test_a_damaged_file_is_told_and_the_rest_is_shown(tmp_path, name, content, told):
    run = make_run(tmp_path, epochs=0)
    (run / "failure").mkdir()
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    page = report(run)
    assert re.search(told, page.text) and "line 49" in page.text and "What the trainer reports" in page.text


def test_results_of_the_same_names_stand_side_by_side(tmp_path):
    change = {"reward": {"difference": 0.5, "low": 0.25, "high": 0.75, "tasks": 6}}
    summary = {
        "before": {"reward": 0.25, "turns": 1.0}, "after": {"reward": 0.75, "turns": 2.0}, "counts": {"used": 3},
        "change": change | {"turns": {"difference": 1.0, "low": -1.0, "high": 3.0, "tasks": 6}},
    }  # fmt: skip
    rows = report(make_run(tmp_path, epochs=2, summary=summary)).rows
    assert ["", "before", "after", "change"] in rows and ["reward", "0.25", "0.75", "+0.5 (+0.25 to +0.75)"] in rows
    assert ["turns", "1", "2", "+1 (-1 to +3)"] in rows and ["counts", "used 3"] in rows


def test_a_long_history_is_cut_short(tmp_path):
    page = report(make_run(tmp_path, epochs=5000, history={"accuracy": [0.5] * 5000}, readings={}))
    assert "Every 13th of 5000 rows; metrics.json has all." in page.text
    assert len(page.rows) < 500


def test_the_command_writes_the_file_and_prints_its_path(tmp_path):
    run = make_run(tmp_path, epochs=2)
    command = [sys.executable, str(ROOT / "plot.py"), "latest", "--report", "--artifacts", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run / 'report.html'}\n"
    assert not (run / "plots").exists() and [path.name for path in run.glob("*report*")] == ["report.html"]


def test_a_report_goes_where_it_is_told_to_or_beside_the_comparisons(tmp_path, capsys):
    from evaluation.plot_command import main

    for day in (1, 2):
        make_run(tmp_path, f"2026010{day}-000000", epochs=0)
    out = tmp_path / "some where" / "page.html"
    assert main(["latest", "--report", "--artifacts", str(tmp_path), "--out", str(out)]) == 0 and out.exists()
    assert main(["20260101-000000", "20260102-000000", "--report", "--artifacts", str(tmp_path)]) == 0
    both = tmp_path / "comparisons" / "20260101-000000_20260102-000000" / "report.html"
    assert capsys.readouterr().out == f"{out}\n{both}\n" and both.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["--report", "--runs"])
    assert "--report and --runs don't go together: use one at a time" in capsys.readouterr().err
