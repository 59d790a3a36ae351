"""Choices after a few measurements, tried on every dataset of a table."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.performance_table import PerformanceTable
from evaluation.evaluate_command import main
from evaluation.ranking.few_measurements import OWN, STATIC, few_results_lines, summarize_few_results, try_few_results


def two_kinds(noise: float = 0.005, models: int = 16, datasets: int = 9) -> PerformanceTable:
    """Models of two kinds; a third of the datasets is for the second kind, whose models static puts last."""
    draw = np.random.default_rng(0)
    kind = np.where(np.arange(models) % 2, -1.0, 1.0)
    good = np.where(np.arange(datasets) % 3 == 2, -1.0, 1.0)
    values = 0.7 + 0.05 * np.outer(kind, good) + noise * draw.normal(size=(models, datasets))
    return PerformanceTable(
        path=Path("t.csv"), models=tuple(f"m{m}" for m in range(models)),
        datasets=tuple(f"d{d}" for d in range(datasets)), values=values, metrics=("acc",) * datasets,
        model_columns={"kind": tuple("ab"[m % 2] for m in range(models))},
    )  # fmt: skip


def test_a_disappointment_leads_to_the_other_kind_where_static_stays_with_its_own():
    trials = list(try_few_results(two_kinds()))
    assert [trial.dataset for trial in trials] == [f"d{number}" for number in range(9)]
    found = summarize_few_results(trials)
    other = [trial for trial in trials if int(trial.dataset[1:]) % 3 == 2]
    for trial in other:
        assert trial.regret[STATIC][4] > 0.09 and trial.regret[OWN][4] < 0.03
    assert found["difference"][1]["mean"] == 0.0  # nothing is known: the first of the static order
    assert found["difference"][5]["mean"] < -0.02
    assert found["kendall"]["5"]["mean"] > 0.1 and abs(found["kendall"]["0"]["mean"]) < 0.005
    assert all(np.all(np.diff(curve) <= 0) for trial in trials for curve in trial.regret.values() if len(curve) < 5)


def test_regret_is_worked_out_from_what_was_measured():
    table = two_kinds(models=4)
    trial = next(try_few_results(table))
    truth = table.values[:, 0]
    assert trial.regret[STATIC][0] == pytest.approx(truth.max() - max(truth[0], truth[2]), abs=0.02)
    assert trial.regret[STATIC][3] == trial.regret[STATIC][4] == 0.0  # all four are measured
    assert trial.regret[OWN][3] == trial.regret[OWN][4] == 0.0
    assert np.isnan(trial.inside[5])


def test_a_family_that_was_never_measured_elsewhere(tmp_path, capsys):
    trials = list(try_few_results(two_kinds(), family="kind"))
    assert [(trial.dataset, trial.family) for trial in trials[:3]] == [("d0", "a"), ("d0", "b"), ("d1", "a")]
    lines = few_results_lines(trials, two_kinds())
    assert lines[0] == "t.csv: 16 models, 9 datasets, each and family left out once"
    path = tmp_path / "t.csv"
    path.write_text(
        "model,dataset,metric,value\n" + "".join(f"m{m},d{d},acc,0.{m}{d}\n" for m in range(4) for d in range(4))
    )
    assert main(["--table", str(path), "--few-results", "--family", "kind"]) == 3
    assert (
        "--family kind: models have no column of this name; their columns: none; give --models."
        in capsys.readouterr().err
    )
    for words in (["--few-results"], ["--table", str(path), "--family", "x"]):
        with pytest.raises(SystemExit):
            main(words)


def test_the_command_prints_text_and_json(tmp_path, capsys):
    table = two_kinds()
    path = tmp_path / "t.csv"
    rows = [f"m{m},d{d},acc,{table.values[m, d]:.4f}" for m in range(16) for d in range(9)]
    path.write_text("model,dataset,metric,value\n" + "\n".join(rows) + "\n")
    assert main(["--table", str(path), "--few-results", "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    for method in (STATIC, OWN, "nearest datasets", "factorization", "process, random results", "difference"):
        assert any(line.startswith(method + "  ") for line in text.splitlines())
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["schema_version"] == 1 and len(found["trials"]) == 9
    assert set(found["regret"]) == set(found["trials"][0]["regret"])
    assert main(["--table", str(path), "--few-results", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
