"""`python -m evaluation` in a new process, on a small slice; baselines and comparison on their own."""

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from warm_python import run_python

from data.image_encoder import GradientEncoder
from data.ranking_world import FOLDS, load_world, make_fold
from evaluation.ranking.baselines import baseline_scores, noise_ceiling
from evaluation.ranking.comparison import CEILING, RANKERS, Job, compare, plot_comparison, table_lines
from evaluation.ranking.ranking_metrics import weighted_kendall

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = ("epochs=2", "members=1", "variants=2", "lists_per_task=1", "layers=1", "width=16")


def evaluate(*words) -> subprocess.CompletedProcess:
    return run_python(["-m", "evaluation", *words], ROOT)


@pytest.fixture(scope="module")
def world():
    return load_world(GradientEncoder())


@pytest.fixture(scope="module")
def benchmark_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("protocol")
    return out, evaluate("--splits", "A", "--out", out, *QUICK)


@pytest.mark.slow
def test_one_split_end_to_end(benchmark_run, world):
    out, done = benchmark_run
    assert done.returncode == 0, done.stderr
    part = json.loads((out / "protocol.json").read_text())["splits"]["A"]
    fold = make_fold(world, "A", 0)
    assert part["tasks"] == [world.tasks[task].name for task in fold.test_tasks]
    methods = {"random", "static mean", "nearest dataset", "parameters", "source accuracy", "log_me", "h_score", "leep",
               "nce", "n_leep", "nearest_centroid", "linear_probe", CEILING, *RANKERS}  # fmt: skip
    assert methods <= set(part["summary"])
    for method in methods:
        own = part["summary"][method]["weighted_kendall"]
        assert own["low"] <= own["mean"] <= own["high"]
        assert own["mean"] == pytest.approx(np.mean(part["weighted_kendall"][method]), abs=1e-3)
    assert part["summary"][CEILING]["weighted_kendall"]["mean"] > part["summary"]["ranker"]["weighted_kendall"]["mean"]
    assert abs(part["summary"]["random"]["weighted_kendall"]["mean"]) < 0.15
    assert set(part["differences"]["ranker"]) == set(part["summary"]) - {*RANKERS, CEILING}
    for name in ("LogME", "static mean", CEILING, "ranker, hybrid"):
        assert name in done.stdout
    assert (out / "protocol.png").stat().st_size > 10_000


@pytest.mark.slow
def test_reported_figures_are_those_of_the_saved_scores(benchmark_run, world):
    out, _ = benchmark_run
    part = json.loads((out / "protocol.json").read_text())["splits"]["A"]
    (file,) = (out / "runs/A0-alone").glob("models/*/runs/*/rankings.json")
    saved = json.loads(file.read_text())
    assert saved["models"] == list(world.models)
    for name, value in zip(part["tasks"], part["weighted_kendall"]["ranker"], strict=True):
        task = [own.name for own in world.tasks].index(name)
        expected = weighted_kendall(np.array(saved["tasks"][name]["scores"]), world.truth[task])
        assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_finished_folds_are_not_run_again_unless_settings_change(benchmark_run):
    out, _ = benchmark_run
    runs = sorted(out.glob("runs/*/models/*/runs/*"))
    assert evaluate("--splits", "A", "--out", out, *QUICK).returncode == 0
    assert sorted(out.glob("runs/*/models/*/runs/*")) == runs
    assert evaluate("--splits", "A", "--out", out, *QUICK, "seed=1").returncode == 0
    assert len(sorted(out.glob("runs/*/models/*/runs/*"))) == 2 * len(runs)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--splits", "A,Q"], 2, "there is no split 'Q'; allowed: A, B, C, D, E"),
        (["--splits", "A", "hybrid=on"], 2, "hybrid=... is set by the benchmark itself"),
        (["--splits", "A", "--workers", "0"], 2, "at least 1 is needed"),
        (["--splits", "A", "encoder=nowhere:Class"], 2, "encoder = 'nowhere:Class' can't be loaded"),
        (["--splits", "A", "los=lambda"], 3, "did you mean 'loss'"),
        (["--table", "missing.csv"], 3, "missing.csv"),
        (["--table", "missing.csv", "loss=lambda"], 2, "loss=lambda: settings are of the shipped benchmark"),
        (["--json", "out.json"], 2, "--json needs --table; the shipped benchmark writes protocol.json into --out"),
    ],
)
def test_wrong_input_is_told(tmp_path, words, code, text):
    done = evaluate("--out", tmp_path, *words)
    assert done.returncode == code and text in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_table_of_the_users_own(tmp_path):
    draw = np.random.default_rng(0)
    quality = draw.normal(size=8)
    lines = ["model,dataset,metric,value"]
    for dataset in range(6):
        values = quality + 0.3 * draw.normal(size=8)
        lines += [f"m{m},d{dataset},accuracy,{value:.4f}" for m, value in enumerate(values)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    done = evaluate("--table", tmp_path / "table.csv", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert "static" in done.stdout and "ranker" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["models"] == 8


def test_baselines_never_see_test_accuracies(world):
    for split in FOLDS:
        fold = make_fold(world, split, 0)
        task = fold.test_tasks[0]
        before = baseline_scores(world, fold, task)
        truth = world.truth.copy()
        truth[task, list(fold.test_models)] = 0.5
        hidden = [m for m in range(len(world.models)) if m not in fold.train_models]
        truth[:, hidden] = 0.1
        after = baseline_scores(dataclasses.replace(world, truth=truth), fold, task)
        assert before.keys() == after.keys()
        for name, scores in before.items():
            assert np.array_equal(scores, after[name]), (split, name)


def test_baselines_without_meaning_are_left_out(world):
    assert "static mean" in baseline_scores(world, make_fold(world, "A", 0), 0)
    unseen_models = baseline_scores(world, make_fold(world, "D", 0), 0)
    assert "static mean of the family" in unseen_models and "nearest dataset" not in unseen_models
    unseen_family = baseline_scores(world, make_fold(world, "E", 0), 0)
    assert not any(name.startswith(("static", "nearest dataset")) for name in unseen_family)


def test_the_ceiling_falls_with_the_noise(world):
    fold = make_fold(world, "A", 0)
    task = fold.test_tasks[0]
    exact = np.repeat(world.truth[:, :, None], 4, axis=2)
    quiet = dataclasses.replace(world, seeds=exact + 1e-6 * np.random.default_rng(0).normal(size=exact.shape))
    noisy = dataclasses.replace(world, seeds=exact + 0.2 * np.random.default_rng(0).normal(size=exact.shape))
    assert noise_ceiling(quiet, fold, task) > 0.99
    assert noise_ceiling(noisy, fold, task) < noise_ceiling(world, fold, task) < 0.99


def test_a_perfect_ranker_has_no_regret_and_wins_every_comparison(world, tmp_path):
    fold = make_fold(world, "D", 0)
    perfect = {world.tasks[task].name: {"scores": world.truth[task, list(fold.test_models)].tolist()}
               for task in fold.test_tasks}  # fmt: skip
    content = compare(world, {Job("D", 0, ranker): {"tasks": perfect} for ranker in RANKERS})
    part = content["splits"]["D"]
    assert part["summary"]["ranker"]["weighted_kendall"]["mean"] == pytest.approx(1)
    assert part["summary"]["ranker"]["top1_regret"]["mean"] == 0 and part["summary"]["ranker"]["recall"]["mean"] == 1
    assert all(value["low"] > 0 for value in part["differences"]["ranker"].values())
    assert any("Split D" in line for line in table_lines(content))
    plot_comparison(content, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5_000
