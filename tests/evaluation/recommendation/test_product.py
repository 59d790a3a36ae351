"""`python recommend.py photos/ --zoo zoo.yaml` in new processes, with small networks made on the spot."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm_python import run_python
from zoo_samples import write_photos, write_zoo

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"licence": "apache-2.0", "parameters": 1000, "gflops": 0.01}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def zoo(tmp_path) -> Path:
    """Two that see where it is bright, one that sees nothing but the mean colour, one whose features are not finite."""
    return write_zoo(
        tmp_path / "zoo",
        {"name": "coarse", "arguments": {"cells": 1}, **FACTS},
        {"name": "fine", "arguments": {"cells": 8}, **FACTS, "parameters": 5000, "gflops": 0.05, "licence": "mit"},
        {"name": "finer", "arguments": {"cells": 8}, **FACTS, "parameters": 6000, "gflops": 0.06},
        {"name": "broken", "kind": "Broken", **FACTS},
    )


def ask(*words, artifacts: Path) -> subprocess.CompletedProcess:
    return run_python([ROOT / "recommend.py", *map(str, words), "--artifacts", artifacts], artifacts.parent)


def answer(*words, artifacts: Path) -> dict:
    done = ask(*words, "--json", artifacts=artifacts)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_models_are_ranked_with_groups_costs_and_the_command_to_go_on(photos, zoo, tmp_path):
    done = ask(photos, "--zoo", zoo, "--out", tmp_path / "a/my.png", "--report", tmp_path / "a/my.html",
               artifacts=tmp_path / "artifacts")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{photos}: 90 images, 3 classes (30 of each): left, middle, right"
    assert lines[1] == f"{zoo}: 3 of 4 models assessed, each on its own input"
    assert lines[2].startswith("left out: broken: features") and "not finite" in lines[2]
    table = lines[4:9]
    assert re.match(
        r"rank  group  model +probe +90 % interval +best  params +GFLOPs  ms/image +memory  licence", table[0]
    )
    rows = [line.split() for line in table[1:] if not line.startswith("---")]
    assert [row[1] for row in rows] == ["A", "A", "B"] and rows[2][2] == "coarse"
    assert {row[2] for row in rows[:2]} == {"fine", "finer"} and table[3].startswith("-----")
    assert all(float(row[4]) < float(row[3]) < float(row[6]) for row in rows)
    first = rows[0][2]
    assert lines[10] == "the first 2 are level: fine-tune these, or the cheapest of them."
    assert f"  python train.py ImageClassifier data={photos} model={first} zoo={zoo}" in lines
    assert f"  1. {zoo.parent / first}.safetensors" in lines
    assert lines[-2:] == [f"wrote {tmp_path / 'a/my.png'}", f"wrote {tmp_path / 'a/my.html'}"]
    told = done.stderr.splitlines()
    assert len(told) == 4 and re.match(r"\[1/4\] \w+: .*; about \d+ s left$", told[0]) and "left" not in told[3][-9:]
    from matplotlib.image import imread

    picture = imread(tmp_path / "a/my.png")
    assert picture.shape[1] > 800 and picture[..., :3].std() > 0.05
    page = (tmp_path / "a/my.html").read_text()
    assert (
        page.count("data:image/jpeg;base64,") >= 5 and "<script" not in page and "http" not in page.split("</style>")[1]
    )
    assert "What fine" in page and "features" in page


def test_json_says_all_there_is_to_know_and_a_second_call_computes_nothing(photos, zoo, tmp_path):
    first = answer(photos, "--zoo", zoo, artifacts=tmp_path / "artifacts")
    assert first["schema_version"] == 1 and first["complete"] and first["accuracy_of"] == "linear probe"
    assert first["dataset"]["images_of_each_class"] == [30] * 3 and first["scored_images"] == 90
    assert first["guess_accuracy"] == pytest.approx(1 / 3) and first["level"] == 2
    assert [each["name"] for each in first["zoo"]["failed"]] == ["broken"]
    best, _, worst = first["models"]
    assert best["rank"] == 1 and best["expected_accuracy"] > 0.7 and worst["expected_accuracy"] < 0.65
    assert sum(model["chance_of_best"] for model in first["models"]) == pytest.approx(1)
    for model in first["models"]:
        assert model["low"] < model["expected_accuracy"] < model["high"]
        assert {"log_me", "h_score", "n_leep", "centroid", "leep"} == model["scores"].keys()
        assert model["milliseconds_an_image"] > 0 and model["input"] == [32, 32]
    began = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}
    again = answer(photos, "--zoo", zoo, artifacts=tmp_path / "artifacts")
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("*") if path.is_file()} == began
    other = answer(photos, "--zoo", zoo, "--models", "finer", "coarse", "--top", 1, artifacts=tmp_path / "artifacts")
    assert [model["name"] for model in other["models"]] == ["finer"] and other["zoo"]["assessed"] == 2


def test_limits_leave_models_out_before_they_are_loaded(photos, zoo, tmp_path):
    (zoo.parent / "finer.safetensors").unlink()  # who would load it, would fail
    found = answer(photos, "--zoo", zoo, "--max-params", "5.5k", "--licence", "MIT", "Apache 2.0",
                   artifacts=tmp_path / "artifacts")  # fmt: skip
    assert [(each["name"], each["option"]) for each in found["zoo"]["over_limits"]] == [("finer", "--max-params")]
    assert [model["name"] for model in found["models"]] == ["fine", "coarse"]
    found = answer(photos, "--zoo", zoo, "--max-gflops", 0.055, "--licence", "mit", artifacts=tmp_path / "artifacts")
    assert [model["name"] for model in found["models"]] == ["fine"] and "only one" in found["advice"]
    done = ask(photos, "--zoo", zoo, "--max-params", "0.5k", artifacts=tmp_path / "artifacts")
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == (
        "error: no model is left: 4 by --max-params of 4 models: the smallest has 1k parameters. Relax --max-params.\n"
    )


def test_measured_results_move_the_ranking(photos, zoo, tmp_path):
    """Level by their probes; the table has found the one to be better wherever both were fine-tuned."""
    plain = answer(photos, "--zoo", zoo, artifacts=tmp_path / "artifacts")
    loser = plain["models"][0]["name"]
    winner = {"fine": "finer", "finer": "fine"}[loser]
    rows = ["model,dataset,metric,value,probe_accuracy,images"]
    for number in range(8):
        high = 0.90 + 0.004 * number
        rows += [f"{winner},d{number},accuracy,{high},0.8,200", f"{loser},d{number},accuracy,{high - 0.15},0.8,200"]
    rows.append("another,d1,accuracy,.5,,")
    table = tmp_path / "results.csv"
    table.write_text("\n".join(rows) + "\n")
    moved = answer(photos, "--zoo", zoo, "--results", table, artifacts=tmp_path / "artifacts")
    assert moved["models"][0]["name"] == winner and moved["accuracy_of"] == "fine-tuning"
    assert moved["learnt_from"] == f"16 results on 8 datasets in {table}"
    assert "+7.5 points from the mean of those measured on 8 other datasets or budgets" in moved["models"][0]["why"]
    of_loser = next(model for model in moved["models"] if model["name"] == loser)
    assert moved["models"][0]["expected_accuracy"] > of_loser["expected_accuracy"] + 0.03
    assert moved["models"][0]["probe"]["accuracy"] <= of_loser["probe"]["accuracy"]
    # The user's own table is read unasked.
    shutil.copy(table, tmp_path / "artifacts/model_results.csv")
    assert answer(photos, "--zoo", zoo, artifacts=tmp_path / "artifacts")["models"][0]["name"] == winner
    # Without probes beside the results the order is learned, the level is the probe's.
    table.write_text("\n".join(",".join(row.split(",")[:4]) for row in rows) + "\n")
    other = answer(photos, "--zoo", zoo, "--results", table, artifacts=tmp_path / "artifacts")
    assert other["models"][0]["name"] == winner and other["accuracy_of"] == "linear probe"


def test_ctrl_c_shows_the_ranking_so_far_and_the_same_command_goes_on(photos, tmp_path):
    gate = tmp_path / "gate"
    zoo = write_zoo(
        tmp_path / "zoo",
        {"name": "quick", "arguments": {"cells": 8}, **FACTS},
        {"name": "slow", "arguments": {"cells": 8, "waits_for": str(gate)}, **FACTS, "gflops": 5},
    )
    artifacts = tmp_path / "artifacts"
    words = [sys.executable, ROOT / "recommend.py", photos, "--zoo", zoo, "--artifacts", artifacts, "--json"]
    called = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    while not (tmp_path / "gate.begun").exists() and called.poll() is None:
        time.sleep(0.02)
    called.send_signal(signal.SIGINT)
    gate.touch()
    shown, said = called.communicate(timeout=120)
    assert called.returncode == 130 and "Traceback" not in said, said
    found = json.loads(shown)
    assert [model["name"] for model in found["models"]] == ["quick"] and not found["complete"]
    assert found["zoo"]["remaining"] == ["slow"]
    whole = answer(photos, "--zoo", zoo, artifacts=artifacts)
    assert whole["complete"] and {model["name"] for model in whole["models"]} == {"quick", "slow"}
    quick = next(model for model in whole["models"] if model["name"] == "quick")
    assert quick["probe"]["accuracy"] == found["models"][0]["probe"]["accuracy"]
    assert quick["milliseconds_an_image"] == found["models"][0]["milliseconds_an_image"], "it was not run again"


def test_where_no_model_can_be_used_the_first_reason_is_what_to_mend(photos, tmp_path):
    zoo = write_zoo(
        tmp_path, {"name": "broken", "kind": "Broken"}, {"name": "blind", "kind": "Blind"}, {"name": "gone"}
    )
    (tmp_path / "gone.safetensors").unlink()
    done = ask(photos, "--zoo", zoo, artifacts=tmp_path / "artifacts")
    assert done.returncode == 3 and done.stdout == "" and "Traceback" not in done.stderr
    error = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert error[0] == "error: no model could be assessed:"
    assert (
        "not finite" in error[1] + error[2] + error[3] and "the same for all images" in error[1] + error[2] + error[3]
    )
    assert error[-1] == "Mend the first of these, then run the same command again." and len(error) == 5


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{photos}", "--max-params", "30M"], 2, "--max-params is about real models and needs --zoo: add --zoo hub"),
        (["{photos}", "--zoo", "{zoo}", "--max-params", "many"], 2, "'many' must be a number above 0, such as 30M"),
        (["{photos}", "--zoo", "{zoo}", "--models", "fines"], 3, "--models: fines is none of the 4 models of the zoo."
                                                                 " Did you mean fine?"),
        (["{photos}", "--zoo", "none.yaml"], 3, "cannot read the manifest none.yaml"),
        (["nowhere", "--zoo", "{zoo}"], 3, "nowhere"),
        (["{photos}", "--zoo", "{zoo}", "--results", "none.csv"], 3, "cannot read the table of results none.csv"),
        (["{photos}", "--zoo", "{zoo}", "--device", "gpu"], 3, "--device gpu: there is no such device"),
        (["{photos}", "--zoo", "{zoo}", "--out", "x.jpg"], 2, "must end in .png"),
        (["{photos}", "--zoo", "{zoo}", "--report", "/proc/x/y.html", "--models", "fine"], 4, "cannot write /proc/x"),
    ],
)  # fmt: skip
def test_mistakes_are_told(photos, zoo, tmp_path, capsys, words, code, told):
    from evaluation.recommend_command import main

    given = [word.format(photos=photos, zoo=zoo) for word in words]
    try:
        found = main([*given, "--artifacts", str(tmp_path / "artifacts")])
    except SystemExit as left:
        found = left.code
    assert found == code
    assert told in capsys.readouterr().err


def test_a_file_that_can_not_be_written_takes_no_ranking_away(photos, zoo, tmp_path, capsys):
    from evaluation.recommend_command import main

    (tmp_path / "file").touch()
    words = [photos, "--zoo", zoo, "--models", "fine", "coarse", "--artifacts", tmp_path / "artifacts"]
    for option, name in (("--out", "my.png"), ("--report", "my.html")):
        assert main([*map(str, words), option, str(tmp_path / "file" / name)]) == 4
        shown = capsys.readouterr()
        assert shown.out.startswith(f"{photos}: 90 images") and "go on:" in shown.out and "wrote " not in shown.out
        assert f"error: cannot write {tmp_path}/file/{name}: " in shown.err
        assert f"move it away, or set {option} to another folder" in shown.err


def test_a_test_part_is_not_looked_at_and_a_validation_part_is_what_is_scored(tmp_path, zoo):
    for part, images, seed in (("train", 20, 1), ("val", 12, 2), ("test", 6, 3)):
        write_photos(tmp_path / "photos" / part, images, seed=seed)
    shutil.copy(tmp_path / "photos/train/left/000.png", tmp_path / "photos/val/left/copy.png")
    found = answer(tmp_path / "photos", "--zoo", zoo, "--models", "fine", "coarse", artifacts=tmp_path / "artifacts")
    assert found["scored_images"] == 36, "36 to validate with, without the copy"
    assert any("18 images of the test part were not looked at" in note for note in found["notes"])
    assert found["models"][0]["name"] == "fine"


def test_few_images_are_answered_with_wide_intervals(tmp_path, zoo):
    found = answer(write_photos(tmp_path / "few", images=2), "--zoo", zoo, artifacts=tmp_path / "artifacts")
    assert found["scored_images"] == 6 and found["level"] >= 2
    assert all(model["high"] - model["low"] > 0.25 for model in found["models"])
