"""Checks say what they saw with figures: each holds what is right, and refuses what is wrong."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from workflow.checks.checks import run_check
from workflow.definition.facts import CHECKS, Check

ROWS = [{"q": f"question {n}", "a": "yes", "loss": 3.0 * 0.99**n} for n in range(300)]


@pytest.fixture
def folder(tmp_path):
    def lines(name: str, rows: list[dict]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    lines("rows.jsonl", ROWS)
    lines("train.jsonl", ROWS[:270])
    lines("val.jsonl", ROWS[270:])
    lines("leak.jsonl", ROWS[260:])
    lines("nan.jsonl", [*ROWS[:5], {"loss": float("nan")}])
    lines("rising.jsonl", ROWS[::-1])
    lines("gap.jsonl", [{"q": "a", "a": "b"}, {"q": "c", "a": ""}])
    (tmp_path / "torn.jsonl").write_text('{"a": 1}\n{"a": ')
    (tmp_path / "rows.csv").write_text("q,a\n1,2\n3,4\n")
    (tmp_path / "list.json").write_text('[{"q": 1}, {"q": 2}]')
    (tmp_path / "audit.json").write_text('{"duplicates": 0.01, "prompt": {"tokens": 470}, "ok": true}')
    (tmp_path / "config.yaml").write_text("training: {rank: 32}\n")
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "empty").write_text("")
    for step in (200, 400):
        place = tmp_path / "checkpoints" / f"{step:06d}"
        place.mkdir(parents=True)
        save_file({"w": np.ones((3, 2), np.float32)}, place / "model.safetensors")
    for name, b, rank in (("adapter", 1.0, 4), ("untrained", 0.0, 4), ("odd", 1.0, 5), ("infinite", np.inf, 4)):
        place = tmp_path / name
        place.mkdir()
        (place / "adapter_config.json").write_text('{"r": 4, "base_model_name_or_path": "tiny"}')
        save_file(
            {"m.q.lora_A.weight": np.ones((4, 8), np.float32), "m.q.lora_B.weight": np.full((8, rank), b, np.float32)},
            place / "adapter_model.safetensors",
        )
    (tmp_path / "hosted").mkdir()
    lines("hosted/checkpoints.jsonl", [{"step": 200, "path": "tinker://x/weights/200"}])
    return tmp_path


def say(project, kind: str, **arguments: object) -> tuple[bool, str]:
    names = {key.rstrip("_"): value for key, value in arguments.items()}
    found = run_check(Check(kind, names, 1), {"n": 300}, project, sys.executable)
    return found.passed, found.text


PASSING = [
    ("exists", {"files": ["rows.jsonl", "checkpoints"]}, "there"),
    ("rows", {"file": "rows.jsonl", "exactly": "{n}"}, "rows.jsonl has 300 rows"),
    ("rows", {"file": "rows.csv", "at_least": 2}, "2 rows"),
    ("rows", {"file": "list.json", "at_most": 2}, "2 rows"),
    (
        "json_field",
        {"file": "audit.json", "field": "prompt.tokens", "at_least": 450},
        "prompt.tokens of audit.json is 470",
    ),
    ("json_field", {"file": "audit.json", "field": "ok", "equals": True}, "True"),
    ("fields", {"file": "rows.jsonl", "names": ["q", "a"]}, "all 300 rows of rows.jsonl have q, a"),
    (
        "loss_falls",
        {"file": "rows.jsonl", "from_": 2.6, "to": 0.3, "by": 0.9},
        "loss from 2.6 to 0.173, means of 30 each, in 300 rows",
    ),
    ("no_nan", {"file": "rows.jsonl"}, "all numbers of 300 rows"),
    ("checkpoints", {"folder": "checkpoints", "steps": [200, 400]}, "has the checkpoints of 200, 400"),
    ("checkpoints", {"folder": "hosted", "steps": [200]}, "has the checkpoints of 200"),
    ("split", {"files": ["train.jsonl", "val.jsonl"], "shares": [0.9, 0.1]}, "train.jsonl 270, val.jsonl 30"),
    ("disjoint", {"files": ["train.jsonl", "val.jsonl"], "field": "q"}, "in both"),
    ("matches", {"file": "config.yaml", "pattern": r"rank: \d+"}, "has"),
    ("loads_yaml", {"file": "config.yaml", "keys": ["training.rank"]}, "read"),
    ("loads_adapter", {"folder": "adapter"}, "adapter: 1 pair of rank 4 for tiny"),
    ("runs", {"command": "python -c 'print(5)'"}, ": 5"),
]
FAILING = [
    ("exists", {"files": ["absent", "empty"]}, "absent is not there, empty is empty"),
    ("rows", {"file": "rows.jsonl", "at_least": 5000}, "has 300 rows; needed are at least 5,000"),
    ("rows", {"file": "rows.jsonl", "at_most": 5}, "needed are at most 5"),
    ("rows", {"file": "torn.jsonl", "at_least": 1}, "torn.jsonl can't be read as jsonl"),
    ("rows", {"file": "absent.jsonl", "at_least": 1}, "absent.jsonl is not there"),
    ("rows", {"file": "rows.jsonl", "at_least": "{m}"}, "there is no setting m"),
    ("rows", {"file": "rows.jsonl", "at_least": "many"}, "'many' is no number"),
    (
        "json_field",
        {"file": "audit.json", "field": "duplicates", "at_most": 0.001},
        "is 0.01; needed are at most 0.001",
    ),
    ("json_field", {"file": "audit.json", "field": "prompt.words"}, "has no field prompt.words"),
    ("json_field", {"file": "config.yaml", "field": "a"}, "is no JSON"),
    ("fields", {"file": "gap.jsonl", "names": ["q", "a"]}, "gap.jsonl, row 2: a is empty"),
    ("loss_falls", {"file": "rising.jsonl"}, "it does not fall"),
    ("loss_falls", {"file": "rows.jsonl", "from_": 9.0}, "it should begin at about 9"),
    ("loss_falls", {"file": "rows.jsonl", "to": 0.1}, "it should end at 0.1 or below"),
    ("loss_falls", {"file": "rows.jsonl", "by": 0.99}, "it should fall by 99%"),
    ("loss_falls", {"file": "nan.jsonl"}, "loss is no number at row 6 of nan.jsonl"),
    ("loss_falls", {"file": "rows.csv"}, "0 values of loss; two are needed"),
    ("no_nan", {"file": "nan.jsonl"}, "loss is nan at row 6"),
    ("checkpoints", {"folder": "checkpoints", "steps": [200, 600]}, "no checkpoint of step 600; there are 200, 400"),
    ("checkpoints", {"folder": "nowhere", "steps": [200]}, "nowhere has no checkpoint of step 200"),
    ("split", {"files": ["train.jsonl", "leak.jsonl"], "shares": [0.9, 0.1]}, "needed is 90% / 10%"),
    (
        "disjoint",
        {"files": ["train.jsonl", "leak.jsonl"], "field": "q"},
        "row 1 of leak.jsonl is in train.jsonl, too (q)",
    ),
    ("matches", {"file": "config.yaml", "pattern": "absent"}, "lacks 'absent'"),
    ("matches", {"file": "config.yaml", "pattern": "("}, "is no regular expression"),
    ("loads_yaml", {"file": "bad.yaml"}, "bad.yaml is no YAML"),
    ("loads_yaml", {"file": "config.yaml", "keys": ["training.rate"]}, "lacks training.rate"),
    ("loads_adapter", {"folder": "checkpoints"}, "has no adapter_config.json"),
    ("loads_adapter", {"folder": "untrained"}, "every lora_B is 0: nothing was learned"),
    ("loads_adapter", {"folder": "odd"}, "the ranks differ"),
    ("loads_adapter", {"folder": "infinite"}, "has numbers that are not finite"),
    ("runs", {"command": "python -c 'raise SystemExit(3)'"}, "ended with 3"),
    ("runs", {"command": "no-such-program"}, "is not there"),
]


@pytest.mark.parametrize(("kind", "arguments", "text"), PASSING)
def test_what_is_right_passes_with_its_figures(folder, kind, arguments, text):
    passed, said = say(folder, kind, **arguments)
    assert passed and text in said, said


@pytest.mark.parametrize(("kind", "arguments", "text"), FAILING)
def test_what_is_wrong_is_told(folder, kind, arguments, text):
    passed, said = say(folder, kind, **arguments)
    assert not passed and text in said, said


def test_a_cut_file_of_weights_is_no_checkpoint(folder):
    file = folder / "checkpoints" / "000400" / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert not say(folder, "checkpoints", folder="checkpoints", steps=[400])[0], length


def test_every_check_is_tried_both_ways():
    assert {kind for kind, _, _ in PASSING} == {kind for kind, _, _ in FAILING} == set(CHECKS)
