"""The rankers that come with the program fit its data and its features; what is done where they don't."""

import json
import re

import pytest
from safetensors.torch import load_file

from evaluation.ranking import ship_rankers
from evaluation.ranking.saved_ranker import (
    SHIPPED_DIR,
    load_ranker,
    read_ranker_file,
    shipped_folder,
    table_digest,
    zoo_digest,
)

REMEDY = "`make rankers` trains them anew (raise FEATURES_VERSION in data/similarity_lists.py if features have changed)"


@pytest.mark.parametrize(("split", "hybrid"), ship_rankers.SHIPPED)
def test_shipped_rankers_are_of_the_shipped_data_and_features(split, hybrid):
    file = read_ranker_file(shipped_folder(split, hybrid))
    assert (file.split, file.hybrid, file.members) == (split, hybrid, 4)
    assert file.table_digest == table_digest(file.performance) is not None, REMEDY
    assert file.zoo_digest == zoo_digest(file.zoo) is not None, REMEDY
    assert file.stale is None, REMEDY
    noted = json.loads((file.folder / "ranker.json").read_text())["example_scores"]
    assert ship_rankers.example_scores(load_ranker(file.folder)) == pytest.approx(noted, abs=2e-3), REMEDY


def test_they_are_small_and_complete():
    folders = {shipped_folder(*each) for each in ship_rankers.SHIPPED}
    assert folders == {path for path in SHIPPED_DIR.iterdir() if path.is_dir()}
    assert sum(file.stat().st_size for file in SHIPPED_DIR.rglob("*") if file.is_file()) < 2_000_000
    for folder in folders:
        content = json.loads((folder / "ranker.json").read_text())
        assert (content["zoo"], content["performance"]) == ("data/zoo", "constants/dataset_model_performance.json")
        assert len(load_file(folder / "model.safetensors")) > 10


@pytest.mark.slow
def test_a_stale_one_is_trained_anew_aloud(project):
    """Measured anew (here: the table has another byte), the shipped rankers are of a table that is gone."""
    with (project.path / "constants/dataset_model_performance.json").open("a") as stream:
        stream.write("\n")
    settings = (project.path / "config.ini").read_text()
    quick = "[SimilarityTransformerTrainer]\nepochs = 1\nmembers = 1\nvariants = 2\n"
    start = settings.index("[SimilarityTransformerTrainer]")
    end = settings.index("\n[", start)
    (project.path / "config.ini").write_text(settings[:start] + quick + settings[end:])
    first = project.run("hebrew-4", "--top", "1", script="recommend.py")
    assert first.returncode == 0, first.stderr
    told = (
        r"^note: \S+dataset_model_performance.json has changed since the ranker was trained "
        r"\(\S+/data/zoo/rankers/all\); training one: python train.py SimilarityTransformerTrainer split=all"
    )
    assert re.search(told, first.stderr), first.stderr
    assert "epoch 1/1: train_loss" in first.stderr and "train_loss" not in first.stdout
    [own] = project.runs("SimilarityTransformer")
    assert f"ranker {own.name} (split=all)" in first.stdout and "has changed since" not in first.stdout
    again = project.run("hebrew-4", "--top", "1", script="recommend.py")
    assert again.stdout == first.stdout and again.stderr == ""
    # Where it can't be trained, the command is told.
    broken = quick.replace("members = 1", "members = none")
    (project.path / "config.ini").write_text(settings[:start] + broken + settings[end:])
    refused = project.run("hebrew-4", "--hybrid", script="recommend.py")
    assert refused.returncode == 3 and refused.stdout == "" and "Traceback" not in refused.stderr
    assert "members = 'none'" in refused.stderr
    assert refused.stderr.endswith(
        "error: the training of a hybrid ranker failed, as is said above. Train one: "
        "`python train.py SimilarityTransformerTrainer split=all hybrid=on`.\n"
    )
