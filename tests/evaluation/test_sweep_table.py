"""Saved sweeps: the table, the picture, and `plot.py --sweep`."""

import json
from pathlib import Path

import pytest

from evaluation.plot_command import main
from evaluation.plots.sweep_plot import _height, _ticks, plot_sweep
from storage.saved_run import RunDamagedError, RunNotFoundError
from storage.sweeps import load_sweep, sweep_lines

SPACE = {
    "learning_rate": {"kind": "log", "low": 1e-4, "high": 1e-1},
    "width": {"kind": "range", "low": 16, "high": 256},
    "loss": {"kind": "choices", "choices": ["mse", "smooth_l1"]},
}


def row(number: int, state: str, value: float | None, rate: float, width: int, loss: str, **more) -> dict:
    params = {"learning_rate": rate, "width": width, "loss": loss}
    return {"number": number, "state": state, "value": value, "epochs": 5, "run": f"r{number}", "params": params,
            "error": None, **more}  # fmt: skip


ROWS = [
    row(1, "complete", 0.5, 0.001, 64, "mse"),
    row(2, "pruned", 0.1, 0.01, 128, "smooth_l1", epochs=2),
    row(3, "failed", None, 0.1, 256, "mse", epochs=0, error="TrainingError: inf"),
    row(4, "complete", 0.25, 0.0123456, 200, "smooth_l1"),
    row(5, "failed", None, 0.1, 256, "mse", epochs=0, error="TrainingError: inf"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = {"schema_version": 1, "trainer": "TinyTrainer", "sweep": "s", "metric": "val_loss", "planned": 6,
               "direction": "minimize", "space": SPACE, "importance": {"width": 0.25, "loss": 0.75},
               "trials": ROWS}  # fmt: skip
    (tmp_path / "trials.json").write_text(json.dumps(content))
    return tmp_path


def changed(folder: Path, **changes) -> Path:
    content = json.loads((folder / "trials.json").read_text()) | changes
    (folder / "trials.json").write_text(json.dumps(content))
    return folder


def test_the_table_has_the_best_first_and_pruned_ones_after_complete_ones(folder):
    assert sweep_lines(load_sweep(folder)) == [
        "trial  val_loss  learning_rate  width       loss  epochs  state     run",
        "    4      0.25        0.01235    200  smooth_l1       5  complete  r4",
        "    1       0.5          0.001     64        mse       5  complete  r1",
        "    2       0.1           0.01    128  smooth_l1       2  pruned    r2",
        "    3                      0.1    256        mse       0  failed    r3",
        "    5                      0.1    256        mse       0  failed    r5",
        "",
        "sweep s: 5 of 6 trials (2 complete, 1 pruned, 2 failed), not finished: `python train.py TinyTrainer "
        "--sweep FILE` goes on",
        "importance: loss 0.75, width 0.25",
        "trial 3 and 5 failed: TrainingError: inf",
    ]
    assert load_sweep(changed(folder, direction="maximize", planned=5)).best.number == 1
    assert sweep_lines(load_sweep(folder))[7].endswith("5 of 5 trials (2 complete, 1 pruned, 2 failed), finished")


def test_a_trial_that_nobody_is_at_work_on_is_not_called_running(folder):
    changed(folder, trials=[row(1, "running", None, 0.1, 64, "mse")])
    assert " interrupted  r1" in sweep_lines(load_sweep(folder))[1], "its process has given it back"
    (folder / "running/0").mkdir(parents=True)
    assert " killed  r1" in sweep_lines(load_sweep(folder))[1], "nobody holds it"


def test_a_trials_line_crosses_each_axis_at_its_value():
    assert _height(SPACE["learning_rate"], 1e-4, 1) == 0.0
    assert _height(SPACE["learning_rate"], 1e-3, 1) == pytest.approx(1 / 3)
    assert _height(SPACE["width"], 136, 1) == 0.5
    first, second = (_height(SPACE["loss"], "mse", number) for number in (1, 2))
    assert first != second and abs(first - 0.25) < 0.03 and abs(second - 0.25) < 0.03
    assert [text for _, text in _ticks(SPACE["learning_rate"])] == ["0.0001", "0.001", "0.01", "0.1"]
    assert _ticks(SPACE["loss"]) == [(0.25, "mse"), (0.75, "smooth_l1")]
    assert [text for _, text in _ticks({"kind": "range", "low": 0.60317, "high": 0.60538})][::5] == [
        "0.60317",
        "0.60538",
    ]


def test_plot_py_draws_a_sweep_again(folder, capsys):
    assert main(["--sweep", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("trial  val_loss") and shown.endswith(f"\n{folder / 'trials.png'}\n")
    first = (folder / "trials.png").read_bytes()
    out = folder / "elsewhere" / "picture.png"
    assert main(["--sweep", str(folder / "trials.json"), "--out", str(out)]) == 0
    assert out.read_bytes() == first, "the same each time"
    assert main(["--sweep", str(changed(folder, trials=ROWS[2:3]))]) == 0, "there is nothing to draw yet"
    assert ".png" not in capsys.readouterr().out.split("finished")[-1]


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:2], [ROWS[0], ROWS[3] | {"value": 5000.0}]])
def test_one_trial_only_pruned_ones_and_a_wide_span_can_be_drawn(folder, rows):
    sweep = load_sweep(changed(folder, trials=rows, direction="maximize"))
    assert plot_sweep(sweep, folder / "x").name == "trials.png"


def test_what_is_no_sweep(folder, capsys):
    assert main(["--sweep", str(folder / "none")]) == 2
    assert capsys.readouterr().err == f"error: there is no sweep in {folder / 'none'}: it has no trials.json\n"
    with pytest.raises(RunDamagedError, match="has schema version 9, this program reads 1"):
        load_sweep(changed(folder, schema_version=9))
    (folder / "trials.json").write_text("{")
    with pytest.raises(RunDamagedError, match=r"cannot read .*trials\.json"):
        load_sweep(folder)
    with pytest.raises(RunNotFoundError):
        load_sweep(folder / "none")
    with pytest.raises(SystemExit):
        main(["latest", "--sweep", str(folder)])
    assert "--sweep goes alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--report", "--sweep", str(folder)])
    assert "--report and --sweep don't go together: a page is about runs" in capsys.readouterr().err
    assert main([str(folder)]) == 2
    assert f"error: {folder} is a sweep, no run: `python plot.py --sweep {folder}` shows it" in capsys.readouterr().err
