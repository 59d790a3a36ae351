"""Mean, spread and picture of a group of seeds, from its files."""

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from evaluation.plot_command import main
from storage.saved_run import RunDamagedError, RunNotFoundError
from storage.seed_groups import Spread, at_best, content_of, find_group, load_group, over_epochs, table_lines

LOSSES = {0: [3.0, 1.0, 2.0], 1: [2.5, 1.5], 2: [4.0, 3.0, 0.5, 0.75]}
ENDS = {0: "finished", 1: "early_stopped", 2: "finished", 3: "failed"}


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """Three runs of unequal length, one that failed, one that has not begun."""
    model = tmp_path / "models" / "Alpha"
    for seed, state in ENDS.items():
        losses = LOSSES.get(seed, [9.0])
        run = model / "runs" / f"20260101-00000{seed}"
        run.mkdir(parents=True)
        best = min(losses)
        content = {
            "schema_version": 1, "trainer": "AlphaTrainer", "run_id": run.name, "state": state,
            "best": {"epoch": 1 + losses.index(best), "val_loss": best},
            "summary": {"seconds": 2.0 + seed, "epochs": len(losses), "score": 10.0 * seed, "fold": 3,
                        "parts": {"a": 1}},
            "history": {"train_loss": losses, "val_loss": losses, "val_epoch": list(range(1, 1 + len(losses)))},
        }  # fmt: skip
        (run / "metrics.json").write_text(json.dumps(content))
    folder = model / "seeds" / "seeds-20260101-000000"
    folder.mkdir(parents=True)
    members = [{"seed": seed, "run": f"20260101-00000{seed}"} for seed in ENDS] + [{"seed": 4, "run": None}]
    content = {"schema_version": 1, "trainer": "AlphaTrainer", "how": "one after the other", "members": members}
    (folder / "seeds.json").write_text(json.dumps(content))
    return folder


def test_interval_is_scipys():
    values = [0.3, 0.7, 0.1, 0.9]
    spread = Spread.of(values)
    low, high = stats.t.interval(0.95, 3, loc=spread.mean, scale=stats.sem(values))
    assert spread.mean == pytest.approx(0.5) and spread.std == pytest.approx(stats.tstd(values))
    assert spread.interval == (pytest.approx(low), pytest.approx(high))
    assert Spread.of([2.0]) == Spread((2.0,), 2.0, None, None), "of one number there is no spread"
    assert Spread.of([2.0, math.nan]).std is None


def test_epochs_count_the_runs_that_are_left_and_no_failed_one(group):
    column = over_epochs(list(load_group(group).counted.values()))["val_loss"]
    assert [(epoch, len(spread.values)) for epoch, spread in column] == [(1, 3), (2, 3), (3, 2), (4, 1)]
    assert column[1][1].mean == pytest.approx((1.0 + 1.5 + 3.0) / 3)
    assert column[2][1].values == (2.0, 0.5)


def test_best_epoch_is_each_runs_own(group):
    best = at_best(list(load_group(group).counted.values()))
    assert best["val_loss"].values == (1.0, 1.5, 0.5) and best["best_epoch"].values == (2.0, 2.0, 3.0)
    assert best["score"].values == (0.0, 10.0, 20.0), "a number of the trainer's own summary"
    assert not {"seconds", "epochs", "parts", "fold"} & set(best)


def test_table_says_who_is_left_out(group):
    lines = table_lines(load_group(group))
    assert lines[:6] == [
        "seed  run              epochs  best val_loss  at  state",
        "   0  20260101-000000       3              1   2  finished",
        "   1  20260101-000001       2            1.5   2  early_stopped",
        "   2  20260101-000002       4            0.5   3  finished",
        "   3  20260101-000003       1              9   1  failed",
        "   4  -                     -              -   -  waiting",
    ]
    assert lines[7] == "3 seeds, each at its own best epoch; 2 of 5 left out, which came to no end"
    file = group.parent.parent / "runs/20260101-000003/metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"state": "running"}))
    assert table_lines(load_group(group))[4].endswith("  killed"), "no process holds its folder"
    assert lines[9].split() == ["val_loss", "1", "0.5", "-0.242069", "to", "2.24207", "0.5", "1.5"]


def test_what_is_written_reads_back(group):
    found = load_group(group)
    members = {seed: run and run.id for seed, run in found.runs.items()}
    content = content_of(found, members, state="failed")
    assert content["history"]["val_loss"]["runs"] == [3, 3, 2, 1]
    assert content["history"]["val_loss"]["std"][3] is None and content["counted"] == [0, 1, 2]
    (group / "seeds.json").write_text(json.dumps(content))
    assert load_group(group) == found


def test_plot_finds_a_group_by_name_and_draws_it(group, tmp_path, capsys):
    assert main(["seeds-20260101-000000", "--artifacts", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("seed  run") and shown[-1].endswith("loss.png")
    assert {path.name for path in (group / "plots").iterdir()} == {"overview.png", "loss.png"}
    assert find_group(str(group), tmp_path) == find_group(str(group / "seeds.json"), tmp_path) == group
    assert find_group("seeds-latest", tmp_path) == group
    assert find_group("latest", tmp_path) is None, "that is a run"


def test_errors_say_what_there_is(group, tmp_path, capsys):
    assert main(["seeds-1", "--artifacts", str(tmp_path)]) == 2
    expected = f"error: there is no group 'seeds-1' in {tmp_path}; the newest are:\n  Alpha  seeds-20260101-000000\n"
    assert capsys.readouterr().err == expected
    assert main([str(group), "latest", "--artifacts", str(tmp_path)]) == 2
    assert "a group of seeds is drawn alone" in capsys.readouterr().err
    assert main([str(group), "--report", "--artifacts", str(tmp_path)]) == 2
    assert "error: --report is about runs: give those of the group" in capsys.readouterr().err
    with pytest.raises(RunNotFoundError, match="--seeds 8` makes one"):
        find_group("seeds-1", tmp_path / "nowhere")
    (group / "seeds.json").write_text('{"schema_version": 2}')
    with pytest.raises(RunDamagedError, match=r"schema version 2, this program reads 1\."):
        load_group(group)
