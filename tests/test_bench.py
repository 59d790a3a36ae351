"""The benches of speed work. Their times are looked at by people, never by a test."""

import importlib.util
import json
from pathlib import Path

import pytest
from warm_python import run_python

ROOT = Path(__file__).resolve().parent.parent


def cells(table: str, column: str) -> dict[str, str]:
    """One column of a Markdown table, by the row's first cell."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "|" in line]
    head = next(row for row in rows if row[0] in ("contestant", "ours", "case"))
    return {row[0]: row[head.index(column)] for row in rows if len(row) == len(head) and row != head}


@pytest.mark.slow
def test_the_bench_of_speed_measures_equal_work():
    contestants = "bare,menagerie,menagerie eager"
    words = ["--quick", "--workloads", "A", "--contestants", contestants, "--rounds", "1", "--no-write"]
    page = (ROOT / "docs" / "speed.md").read_bytes()
    done = run_python([ROOT / "bench" / "speed.py", *words], ROOT)
    assert done.returncode == 0, done.stderr
    steps = cells(done.stdout, "steps")
    assert {"bare", "menagerie"} <= steps.keys()
    assert steps["bare"] == steps["menagerie"] == steps["menagerie eager"] != ""
    assert cells(done.stdout, "form")["menagerie eager"] == "eager"  # as a form that a run kept to is named
    assert (ROOT / "docs" / "speed.md").read_bytes() == page


def test_the_bench_of_language_models_says_what_it_lacks():
    if importlib.util.find_spec("trl") is not None:
        pytest.skip("trl is installed")
    done = run_python([ROOT / "bench" / "language.py", "--quick", "--only", "training"], ROOT)
    assert done.returncode == 0, done.stderr
    assert "Fine-tuning was not compared: " in done.stdout and "pip install" in done.stdout


def test_the_bench_of_the_doctor_is_right_of_cases_that_it_was_not_built_on(tmp_path):
    cases = ROOT / "bench" / "doctor_cases_own.jsonl"
    done = run_python([ROOT / "bench" / "doctor.py", cases, "--json", tmp_path / "judged.json"], ROOT)
    assert done.returncode == 0, done.stderr
    right, of = json.loads((tmp_path / "judged.json").read_text())["table"]["branch right"]
    assert of == len(cases.read_text(encoding="utf-8").splitlines()) and right >= 0.75 * of


@pytest.mark.slow
def test_the_bench_of_language_models_has_trls_losses_and_transformers_tokens():
    for name in ("transformers", "peft", "trl", "datasets"):
        pytest.importorskip(name)
    page = (ROOT / "docs" / "speed.md").read_bytes()
    done = run_python([ROOT / "bench" / "language.py", "--quick", "--threads", "1"], ROOT)
    assert done.returncode == 0, done.stderr  # it ends with an error where losses differ by more than 1e-4
    training, sampling = done.stdout.split("### Fine-tuning")[1].split("### Sampling")
    assert len(set(cells(training, "first loss").values())) == 2  # of fp32 and of bf16
    assert list(cells(sampling, "same tokens").values()) == ["100%"] * 3
    assert (ROOT / "docs" / "speed.md").read_bytes() == page


def test_the_doctor_tells_the_branch_of_told_cases_about_a_machine(tmp_path):
    cases = ROOT / "bench" / "doctor_cases_own_machine.jsonl"
    done = run_python([ROOT / "bench" / "doctor.py", cases, "--json", tmp_path / "judged.json"], ROOT)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "judged.json").read_text(encoding="utf-8"))["table"]
    right, of = table["branch right"]
    assert of >= 90 and right >= 0.86 * of, done.stdout  # the share that was measured before any of them was looked at
    assert table["traps: obvious answer first"][0] == 0, done.stdout
