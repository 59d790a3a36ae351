"""`python -m evaluation --table T.csv --recommend D`: what is printed, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.evaluate_command import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten models on seven datasets; the better the higher the number. `few` has one result, and `empty` none."""
    draw = np.random.default_rng(0)
    values = 0.5 + 0.03 * np.arange(10)[:, None] + 0.02 * draw.normal(size=(10, 7))
    lines = [f"net-{m},set{d},acc,{values[m, d]:.4f}" for m in range(10) for d in range(7)]
    path = tmp_path / "table.csv"
    path.write_text(
        "model,dataset,metric,value\n" + "\n".join([*lines, "net-3,few,acc,0.6", "net-3,empty,acc,"]) + "\n"
    )
    return path


def run(capsys, *words) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def recommended(capsys, *words) -> dict:
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_new_dataset_is_ranked_in_the_static_order_in_a_process_of_its_own(table):
    words = [sys.executable, "-m", "evaluation", "--table", str(table), "--recommend", "photos"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("photos: no result known; 10 models ranked by 7 other datasets of ")
    assert lines[2].split() == [
        "rank", "model", "acc", "90", "%", "interval", "chance", "best", "expected", "gain", "static", "rank",
    ]  # fmt: skip
    assert lines[3].split()[:2] == ["1", "net-9"] and lines[3].split()[-1] == "1"
    assert "take now: net-9 (expected 0.7" in done.stdout
    assert "measure next: net-9, which you would take anyway; then net-8, which should gain" in done.stdout


def test_results_of_the_table_and_given_ones_are_known(table, capsys):
    found = recommended(capsys, "--table", table, "--recommend", "few", "--known", "net-9=0.70, net-8=0.81")
    assert found["known"] == {"net-3": 0.6, "net-9": 0.7, "net-8": 0.81}
    assert found["schema_version"] == 1 and found["take"] == found["models"][0]["name"]
    by_name = {model["name"]: model for model in found["models"]}
    assert by_name["net-8"] | {"rank": 0} == {
        "rank": 0, "name": "net-8", "value": 0.81, "low": 0.81, "high": 0.81, "measured": True,
        "chance_best": by_name["net-8"]["chance_best"], "expected_gain": 0.0, "static_rank": 2,
    }  # fmt: skip
    assert all(m["low"] < m["value"] < m["high"] for m in found["models"] if not m["measured"])
    assert sum(model["chance_best"] for model in found["models"]) == pytest.approx(1.0)
    assert found["next"]["model"] not in found["known"] and found["next"]["second"] is None
    gains = [model["expected_gain"] for model in found["models"]]
    assert found["next"]["expected_gain"] == pytest.approx(max(gains)) and min(gains) == 0.0


def test_an_empty_dataset_of_the_table_is_like_a_new_one(table, capsys):
    empty, new = (recommended(capsys, "--table", table, "--recommend", name) for name in ("empty", "other"))
    assert [m["name"] for m in empty["models"]] == [m["name"] for m in new["models"]] and not empty["known"]


def test_measuring_ends(table, capsys):
    best = ",".join(f"net-{number}={0.53 + 0.05 * number:.2f}" for number in range(2, 10))
    code, out, _ = run(capsys, "--table", table, "--recommend", "new", "--known", best)
    assert code == 0 and "measuring more isn't worth it: the largest expected gain is " in out
    assert "take now: net-9 (measured 0.98). It is the best one with a chance of 100 %" in out
    everything = ",".join(f"net-{number}=0.5{number}" for number in range(10))
    found = recommended(capsys, "--table", table, "--recommend", "new", "--known", everything)
    assert found["next"]["model"] is None and found["next"]["worth"] is False and found["take"] == "net-9"


def test_a_file_is_written_beside_the_text_and_top_says_how_many_are_shown(table, capsys, tmp_path):
    code, out, _ = run(capsys, "--table", table, "--recommend", "new", "--json", tmp_path / "out.json", "--top", 3)
    assert code == 0 and "and 7 more (--top 10 shows all)" in out
    assert len(json.loads((tmp_path / "out.json").read_text())["models"]) == 10


def test_a_name_like_another_is_told(table, capsys):
    _, _, err = run(capsys, "--table", table, "--recommend", "Set-1")
    assert err == "note: the table has no result on 'Set-1', so it is new; did you mean 'set1'?\n"
    assert run(capsys, "--table", table, "--recommend", "photos")[2] == ""


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ("Net9=0.7", "the table has no model 'Net9'; did you mean 'net-9'"),
        ("resnet=0.7", "the table has no model 'resnet'; "),
        ("net-9=91", "values of acc in the table are from 0.4"),
        ("net-9=91", "; write 0.91 for 91 %."),
        ("net-9=-0.2", "that can't be one of them"),
        ("net-9=nan", "the value is not finite"),
        ("net-9=good", "'good' is no number. Write it as 0.91"),
        ("net-9=", "'' is no number"),
        ("net-9=0.7,net-9=0.8", "'net-9' is given twice (0.7 and 0.8); keep one."),
        ("net-9", "write it as MODEL=VALUE,MODEL=VALUE, such as net-0=0.91."),
        ("", "write it as MODEL=VALUE"),
        ("net-3=0.7", "the table has 0.6 for it on 'few'; keep one of the two."),
    ],
)
def test_known_results_that_cannot_be_are_refused(table, capsys, known, message):
    code, out, err = run(capsys, "--table", table, "--recommend", "few", "--known", known)
    assert (code, out) == (3, "") and message in err and err.startswith("error: --known")


def test_names_may_hold_commas_and_equals_signs(tmp_path, capsys):
    path = tmp_path / "t.csv"
    rows = [f'"knn, k={k}",d{d},acc,{50 + k + 3 * d}' for k in (1, 3, 9) for d in range(3)]
    path.write_text("model,dataset,metric,value\n" + "\n".join(rows) + "\n")
    found = recommended(capsys, "--table", path, "--recommend", "new", "--known", "knn, k=3=55.5,knn, k=9=58")
    assert found["known"] == {"knn, k=3": 55.5, "knn, k=9": 58.0}
    assert any("3 other datasets only: intervals rest on few" in note for note in found["notes"])


def test_percentages_are_told_from_shares(tmp_path, capsys):
    path = tmp_path / "t.csv"
    rows = [f"m{m},d{d},acc,{50.5 + m + 3 * d}" for m in range(4) for d in range(4)]
    path.write_text("model,dataset,metric,value\n" + "\n".join(rows) + "\n")
    code, _, err = run(capsys, "--table", path, "--recommend", "new", "--known", "m1=0.61")
    assert code == 3 and "they are percentages: write 61 for 0.61." in err


def test_other_metrics_give_no_level(tmp_path, capsys):
    path = tmp_path / "t.csv"
    rows = [
        f"m{m},d{d},{'acc' if d < 3 else 'negative_mse'},{m if d < 3 else -9 + m}" for m in range(4) for d in range(5)
    ]
    path.write_text("model,dataset,metric,value\n" + "\n".join(rows) + "\n")
    found = recommended(capsys, "--table", path, "--recommend", "d4")
    assert found["metric"] == "negative_mse" and found["take"] == "m3"
    assert all(model["high"] <= 0 for model in found["models"])


def test_what_is_known_of_datasets_counts_where_it_helps(tmp_path, capsys):
    kinds = ["photo", "sketch"]
    draw = np.random.default_rng(0)
    rows = [
        f"m{m},d{d},acc,{0.6 + 0.02 * m + (0.1 if m % 2 == d % 2 else 0) + 0.01 * draw.normal():.4f}"
        for m in range(8)
        for d in range(10)
    ]
    path, facts = tmp_path / "t.csv", tmp_path / "facts.csv"
    path.write_text("model,dataset,metric,value\n" + "\n".join(rows) + "\n")
    lines = [f"d{d},a {kinds[d % 2]}" for d in range(10)]
    facts.write_text("dataset,about\n" + "\n".join([*lines, "mine,my photo", "yours,your sketch"]) + "\n")
    for dataset, best in (("mine", "m6"), ("yours", "m7")):
        found = recommended(capsys, "--table", path, "--recommend", dataset, "--metadata", facts)
        assert found["take"] == best
        assert (
            f"datasets near {dataset!r} by about count more: on datasets left out that ranks better" in found["notes"]
        )
    facts.write_text("dataset,about\n" + "\n".join([f"d{d},a {kinds[d % 4 // 2]}" for d in range(10)]) + "\n")
    found = recommended(capsys, "--table", path, "--recommend", "mine", "--metadata", facts)
    assert not any("count more" in note for note in found["notes"])
    facts.write_text("name,about\nd0,x\n")
    code, _, err = run(capsys, "--table", path, "--recommend", "mine", "--metadata", facts)
    assert code == 3 and "there is no column 'dataset'" in err


def test_too_few_datasets_and_options_that_do_not_go_together(table, tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text("model,dataset,metric,value\na,x,acc,0.5\nb,x,acc,0.6\n")
    code, _, err = run(capsys, "--table", path, "--recommend", "new")
    assert code == 3 and "1 dataset besides 'new' (x); 2 or more are needed" in err
    path.write_text("model,dataset,metric,value\n" + "".join(f"{m},{d},acc,0.5\n" for m in "ab" for d in "xyz"))
    code, _, err = run(capsys, "--table", path, "--recommend", "new")
    assert code == 3 and "0 datasets tell models apart; at least 2 are needed." in err
    assert run(capsys, "--recommend", "new")[0] == 2
    code, _, err = run(capsys, "--table", table, "--known", "net-1=0.5")
    assert code == 2 and "--known needs --recommend DATASET" in err
    assert run(capsys, "--table", table, "--recommend", "x", "--top", 0)[0] == 2
