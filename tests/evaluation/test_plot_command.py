"""`python plot.py` in a new process, and what the panels hold."""

import json
import math
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from warm_python import run_python

from evaluation.plots.figures import new_figure
from evaluation.plots.run_plots import draw_overview, log_axis, panel_title, panels_of, plot_runs
from storage.saved_run import load_run

ROOT = Path(__file__).resolve().parent.parent.parent


def make_run(artifacts: Path, run_id: str, epochs: int, model: str = "Alpha", **history) -> Path:
    folder = artifacts / "models" / model / "runs" / run_id
    folder.mkdir(parents=True)
    draw = random.Random(run_id)
    train = [math.exp(-epoch / 20) + 0.02 * draw.random() for epoch in range(epochs)]
    val = [loss + 0.05 + 0.02 * draw.random() for loss in train]
    content = {
        "schema_version": 1, "trainer": f"{model}Trainer", "run_id": run_id, "state": "finished",
        "best": {"epoch": 1 + val.index(min(val)), "val_loss": min(val)}, "summary": {"seconds": 12.0},
        "history": {"train_loss": train, "val_loss": val, "val_epoch": list(range(1, epochs + 1)),
                    "learning_rate": [1e-3 * 0.5 ** (epoch // 15) for epoch in range(epochs)], **history},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def plot(*words) -> subprocess.CompletedProcess:
    return run_python([ROOT / "plot.py", *words], Path.cwd())


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)


def test_one_run_is_drawn_beside_it(tmp_path):
    run = make_run(tmp_path, "20260101-000000", 40, train_top1=[0.5] * 40, val_top1=[0.4] * 40)
    done = plot("latest", "--artifacts", tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (run / "plots").iterdir()}
    assert names == {"overview.png", "loss.png", "learning_rate.png"}  # top1 never changes
    assert sorted(done.stdout.split()) == sorted(str(run / "plots" / name) for name in names)
    image = pixels(run / "plots/overview.png")
    assert image.shape[0] > 400 and image.shape[1] > 1000
    assert image[..., :3].std() > 0.05, "something is drawn"
    assert plot("latest", "--artifacts", tmp_path, "--more").returncode == 0
    more = {path.name for path in (run / "plots").iterdir()} - names
    assert more == {"loss_log.png", "loss_rolling.png", "top1.png"}


def test_pictures_of_metrics_with_awkward_names_do_not_replace_each_other(tmp_path):
    names = ("train_f1@1", "train_f1/1", "train_overview", "train_F1_1")
    run = make_run(tmp_path, "20260101-000000", 4, **{name: [0.1, 0.2, 0.3, 0.4] for name in names})
    written = plot_runs([load_run(run)], tmp_path / "out")
    assert len({path.name.lower() for path in written}) == len(written) == 2 + 4
    assert {"overview.png", "overview_2.png", "f1_1.png", "f1_1_2.png"} <= {path.name for path in written}


def test_an_epoch_list_is_the_axis_and_no_metric(tmp_path):
    run = load_run(make_run(tmp_path, "20260101-000000", 3, epoch=[5, 10, 15]))
    assert "epoch" not in panels_of([run])
    assert run.series["train_loss"][0] == [5, 10, 15] and run.series["val_loss"][0] == [1, 2, 3]


def test_several_runs_go_into_one_picture(tmp_path):
    first = make_run(tmp_path, "20260101-000000", 30)
    make_run(tmp_path, "20260102-000000", 20, model="Beta")
    done = plot(first, "beta", "--artifacts", tmp_path, "--out", tmp_path / "both.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "both.png")
    runs = [load_run(first), load_run(tmp_path / "models/Beta/runs/20260102-000000")]
    figure = draw_overview(runs, panels_of(runs))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[0] == "Alpha, training" and labels[3] == "Beta, validation"


def test_the_best_epoch_is_marked_and_named(tmp_path):
    run = load_run(make_run(tmp_path, "20260101-000000", 30))
    figure = draw_overview([run], panels_of([run]))
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert len(stars) == 1
    assert (stars[0].get_xdata()[0], stars[0].get_ydata()[0]) == (run.best_epoch, run.best_value)
    assert f"at epoch {run.best_epoch}" in stars[0].get_label()
    assert all(axis.get_xlabel() == "epoch" and axis.get_ylabel() for axis in figure.axes if axis.get_visible())


def test_the_star_stands_at_what_is_monitored(tmp_path):
    folder = make_run(tmp_path, "20260101-000000", 3, val_accuracy=[0.5, 0.9, 0.7])
    content = json.loads((folder / "metrics.json").read_text()) | {"monitor": "val_accuracy", "monitor_mode": "max"}
    content["best"] = {
        "epoch": 2,
        "metric": "val_accuracy",
        "value": 0.9,
        "val_loss": content["history"]["val_loss"][1],
    }
    (folder / "metrics.json").write_text(json.dumps(content))
    run = load_run(folder)
    axes = {axis.get_title(): axis for axis in draw_overview([run], panels_of([run])).axes}
    stars = {title: line for title, axis in axes.items() for line in axis.lines if line.get_marker() == "*"}
    assert stars.keys() == {"Loss", "Accuracy"}
    assert (*stars["Accuracy"].get_xdata(), *stars["Accuracy"].get_ydata()) == (2, 0.9)
    assert stars["Accuracy"].get_label() == "best: 0.9 at epoch 2"
    assert stars["Loss"].get_ydata()[0] == run.series["val_loss"][1][1]
    assert stars["Loss"].get_label() == "epoch 2, of the best val_accuracy"


def test_what_never_changes_has_no_panel_but_is_told(tmp_path):
    run = load_run(make_run(tmp_path, "20260101-000000", 6, learning_rate=[0.005] * 6))
    figure = draw_overview([run], panels_of([run]))
    assert [axis.get_title() for axis in figure.axes] == ["Loss"]
    assert figure.get_suptitle().endswith("\nconstant: learning rate 0.005")
    short = load_run(make_run(tmp_path, "20260102-000000", 1, val_top1=[0.5], learning_rate=[0.005]))
    assert list(panels_of([short])) == ["loss", "top1"]
    (axis, _) = draw_overview([short], panels_of([short])).axes
    assert list(axis.get_xticks()) == [1]
    odd = load_run(make_run(tmp_path, "20260103-000000", 3, val_top1=[None] * 3))
    (axis,) = [axis for axis in draw_overview([odd], panels_of([odd])).axes if axis.get_title() == "Top1"]
    assert [text.get_text() for text in axis.texts] == ["no finite value"]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (2.0, 3.0, ["2", "2.5", "3"]), (0.02, 1.0, ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (1e-5, 1.0, ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)  # fmt: skip
def test_a_logarithmic_axis_has_plain_numbers_at_any_range(low, high, shown):
    figure = new_figure(5, 3)
    axis = figure.subplots()
    axis.plot([1, 2], [low, high])
    log_axis(axis, [low, high])
    figure.canvas.draw()
    bottom, top = axis.get_ylim()
    ticks = [
        label.get_text()
        for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
        if bottom <= place <= top
    ]
    assert set(shown) <= set(ticks)
    assert not any(label.get_text() for label in axis.get_yticklabels(minor=True))


def test_another_history_gives_another_picture(tmp_path):
    runs = [make_run(tmp_path, f"2026010{day}-000000", 12) for day in (1, 2)]
    images = [pixels(plot_runs([load_run(run)], tmp_path / f"{run.name}.png")[0]) for run in runs]
    assert not np.array_equal(*images)


@pytest.mark.parametrize("epochs", [1, 3, 10_000])
def test_short_long_and_broken_histories_are_drawn(tmp_path, epochs):
    odd = {"val_a/b metric": [None] * epochs, "train_a/b metric": [1.0] * epochs}
    written = plot_runs([load_run(make_run(tmp_path, "20260101-000000", epochs, **odd))], tmp_path / "out")
    assert "a_b_metric.png" in {path.name for path in written}
    assert all(path.parent == tmp_path / "out" for path in written)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nothing"], 2, "there is no run 'nothing'"),
        ([], 2, "the following arguments are required: RUN"),
        (["20260101-000000"], 3, "nothing was measured in 20260101-000000"),
        (["20260102-000000"], 3, "cannot read"),
        (["20260103-000000", "--out", "/proc/pictures"], 4, "/proc/pictures"),
    ],
)
def test_mistakes_end_in_one_clear_line(tmp_path, words, code, text):
    empty = make_run(tmp_path, "20260101-000000", 1)
    content = json.loads((empty / "metrics.json").read_text())
    (empty / "metrics.json").write_text(json.dumps(content | {"history": {}}))
    (make_run(tmp_path, "20260102-000000", 1) / "metrics.json").write_text("{")
    make_run(tmp_path, "20260103-000000", 2)
    done = plot(*words, "--artifacts", tmp_path)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "title"),
    [("ndcg", "NDCG"), ("macro_f1", "Macro F1"), ("val_pearson", "Val pearson"), ("amplitude", "Amplitude")],
)
def test_titles_write_abbreviations_as_such(name, title):
    assert panel_title([], name, []) == title
