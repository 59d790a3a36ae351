"""bench/speed.py works. Its times are looked at by people, never by a test."""

from pathlib import Path

from warm_python import run_python

ROOT = Path(__file__).resolve().parent.parent


def cells(table: str, column: str) -> dict[str, str]:
    """One column of a Markdown table, by the row's first cell."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "|" in line]
    head = next(row for row in rows if row[0] == "contestant")
    return {row[0]: row[head.index(column)] for row in rows if len(row) == len(head) and row != head}


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
