"""`python recommend.py` with rankers that `python train.py` has trained, in new processes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from warm_python import run_python

from data.ranking_world import load_world
from data.zoo_images import load_domains
from evaluation.ranking import saved_ranker
from evaluation.ranking.expected_accuracy import AccuracyModel, dataset_facts, from_logit, logit
from evaluation.ranking.saved_ranker import shipped_folder
from evaluation.recommend_command import main

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module", autouse=True)
def worlds():
    """Read each zoo and encode its tasks once for the calls in this process; it takes half of a call."""
    made = {}

    def once(encoder, *files):
        key = (type(encoder), *files)
        if key not in made:
            made[key] = load_world(encoder, *files)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_ranker, "load_world", once)
        yield


def run(script: str, *words, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return run_python([ROOT / script, *words], cwd)


def train(artifacts: Path, *settings: str) -> None:
    small = ("epochs=1", "members=1", "variants=2", "plot_at_end=off", f"artifacts_dir={artifacts}")
    done = run("train.py", "SimilarityTransformerTrainer", *small, *settings)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def rankers(tmp_path_factory) -> Path:
    """An artifacts folder with a ranker of each kind, and with younger ones that must not be chosen.

    One is trained here; the others are the shipped ones, in the folder of a run.
    """
    artifacts = tmp_path_factory.mktemp("rankers")
    train(artifacts, "split=all")
    trained = run_folder(artifacts, "all")
    for number, shipped in enumerate((shipped_folder("all", True), shipped_folder("foreign", False)), start=2):
        run = trained.with_name(f"{trained.name}-{number}")
        shutil.copytree(trained, run)
        shutil.copytree(shipped, run, dirs_exist_ok=True)
    for index, state in enumerate(("interrupted", "failed", "running")):
        folder = artifacts / f"models/SimilarityTransformer/runs/2099010{index + 1}-000000"
        shutil.copytree(run_folder(artifacts, "all"), folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"state": state}))
    control = artifacts / "models/SimilarityTransformer/runs/20990104-000000"
    shutil.copytree(run_folder(artifacts, "all"), control)
    settings = (control / "config.ini").read_text()
    assert "shuffle_truth = off" in settings.lower().replace("false", "off")
    (control / "config.ini").write_text(re.sub(r"shuffle_truth = \w+", "shuffle_truth = on", settings))
    return artifacts


def run_folder(artifacts: Path, split: str, hybrid: bool = False) -> Path:
    """Find the oldest ranker of a kind."""
    for file in sorted(artifacts.glob("models/*/runs/*/ranker.json")):
        content = json.loads(file.read_text())
        if (content["split"], content["hybrid"]) == (split, hybrid):
            return file.parent
    raise AssertionError(f"no ranker of split {split}")


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """Forty images of four classes, twice as large as the zoo's."""
    images, labels = load_domains()["mnist"].select("target_test")
    rows = np.concatenate([np.flatnonzero(labels == label)[:10] for label in range(4)])
    return {"images": images[rows].repeat(2, axis=1).repeat(2, axis=2), "labels": labels[rows]}


def save(path: Path, arrays: dict[str, np.ndarray], **changes) -> Path:
    np.savez(path, **(arrays | changes))
    return path


def ask(capsys, *words) -> dict:
    """Run the command line in this process and read its JSON."""
    code = main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out)


def refused(capsys, *words) -> tuple[int, str]:
    """Run the command line in this process; before the error there may be what a user's module prints."""
    code = main(list(map(str, words)))
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    assert shown.err.replace("loud\n", "").startswith("error: ") and shown.err.count("error:") == 1
    return code, shown.err


def test_models_are_ranked_and_drawn(rankers, arrays, tmp_path):
    data, picture = save(tmp_path / "my.npz", arrays), tmp_path / "pictures/my.png"
    done = run("recommend.py", data, "--artifacts", rankers, "--out", picture, "--top", 4)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{data}: 40 images, 4 classes (10 of each), 24x24, seen as 12x12 grey"
    used = run_folder(rankers, "all").name
    assert lines[1].startswith(f"ranker {used} (split=all), 96 models of ") and lines[1].endswith(
        "no model was run on the images"
    )
    assert lines[2].startswith("nearest known datasets: mnist-")
    table = lines[4:9]
    assert re.match(r"rank  model +score  expected  interval +family +trained on +mnist-\d", table[0])
    assert [line.split()[0] for line in table[1:]] == ["1", "2", "3", "4"] and lines[9] == ""
    assert lines[-1] == f"wrote {picture}"
    from matplotlib.image import imread

    image = imread(picture)
    assert image.shape[0] > 300 and image.shape[1] > 800 and image[..., :3].std() > 0.05


def test_json_says_all_there_is_to_know(rankers, arrays, tmp_path):
    data = save(tmp_path / "my.npz", arrays, labels=np.array(list("abcd")).repeat(10))
    done = run("recommend.py", data, "--artifacts", rankers, "--json", "--top", 200, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    content = json.loads(done.stdout)
    (note,) = content["notes"]
    assert content["schema_version"] == 1 and note.endswith(f"`python recommend.py {data} --zoo hub`")
    assert note.startswith("THESE ARE THE LABORATORY'S NETWORKS of 8,000 parameters")
    assert content["dataset"] == {
        "given": str(data), "task": None, "images": 40, "classes": 4, "class_names": list("abcd"),
        "images_of_each_class": [10] * 4, "size": [24, 24],
    }  # fmt: skip
    assert content["ranker"]["split"] == "all" and content["ranker"]["hybrid"] is False
    models = content["models"]
    assert [model["rank"] for model in models] == list(range(1, 97)) and len({model["name"] for model in models}) == 96
    scores = [model["score"] for model in models]
    assert scores == sorted(scores, reverse=True)
    for model in models:
        assert 0 < model["low"] < model["expected_accuracy"] < model["high"] < 1
        assert len(model["nearest"]) == 3 and all(0 < near["accuracy"] <= 1 for near in model["nearest"])
        assert model["name"].startswith(f"{model['domain']}-{model['view']}-{model['family']}")


def test_the_order_of_images_and_classes_does_not_matter(rankers, arrays, tmp_path, capsys):
    order = np.random.default_rng(0).permutation(40)
    changed = {"images": arrays["images"][order], "labels": 7 - arrays["labels"][order]}
    first = ask(capsys, save(tmp_path / "a.npz", arrays), "--artifacts", rankers)["models"]
    second = ask(capsys, save(tmp_path / "b.npz", changed), "--artifacts", rankers)["models"]
    assert [model["name"] for model in first] == [model["name"] for model in second]
    for key in ("score", "expected_accuracy", "low", "high"):
        assert np.allclose([model[key] for model in first], [model[key] for model in second], atol=1e-4)


def test_a_folder_of_images_is_ranked_for(rankers, arrays, tmp_path, capsys):
    from PIL import Image

    for number, (image, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
        (tmp_path / f"pets/{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"pets/{label}/{number}.png")
    from_folder = ask(capsys, tmp_path / "pets", "--artifacts", rankers)["models"]
    from_npz = ask(capsys, save(tmp_path / "a.npz", arrays), "--artifacts", rankers)["models"]
    assert [model["name"] for model in from_folder] == [model["name"] for model in from_npz]


def test_accuracies_of_a_named_task_stay_hidden(rankers, tmp_path, capsys):
    """The ranking must not change when what was measured on the task does."""
    first = ask(capsys, "digits-2", "--artifacts", rankers)
    assert all(near["name"] != "digits-2" for model in first["models"] for near in model["nearest"])
    assert first["dataset"]["task"] == "digits-2"
    assert "the ranker was trained on digits-2, so this ranking is no test of it." in first["notes"]
    other = tmp_path / "run"
    shutil.copytree(run_folder(rankers, "all"), other)
    ranker = json.loads((other / "ranker.json").read_text())
    table = json.loads(Path(ranker["performance"]).read_text())
    table["tasks"]["digits-2"]["accuracy"].reverse()
    (tmp_path / "table.json").write_text(json.dumps(table))
    (other / "ranker.json").write_text(json.dumps(ranker | {"performance": str(tmp_path / "table.json")}))
    second = ask(capsys, "digits-2", "--ranker", other)
    assert second["models"] == first["models"]
    # What was measured is shown beside the ranking, as it stands in the table.
    means = {
        name: float(np.mean(own))
        for name, own in zip(table["models"], table["tasks"]["digits-2"]["accuracy"], strict=True)
    }
    shown, chosen = second["measured"], second["models"][0]["name"]
    assert {name: own["accuracy"] for name, own in shown["models"].items()} == pytest.approx(means)
    assert shown["best"] == max(means, key=means.__getitem__) and shown["models"][shown["best"]]["rank"] == 1
    assert shown["regret"] == pytest.approx(max(means.values()) - means[chosen]) and shown["seen_in_training"]
    assert first["measured"]["weighted_kendall"] != shown["weighted_kendall"]
    changed = "has changed since the ranker was trained; train it again: python train.py Similarity"
    assert any(changed in note for note in second["notes"]) and not any(changed in note for note in first["notes"])


def test_hybrid_runs_every_model(rankers, arrays, tmp_path, capsys):
    data = save(tmp_path / "my.npz", arrays)
    content = ask(capsys, data, "--artifacts", rankers, "--hybrid")
    assert content["ranker"]["hybrid"] is True
    plain = ask(capsys, data, "--artifacts", rankers)
    assert [m["score"] for m in content["models"]] != [m["score"] for m in plain["models"]]
    hybrid = run_folder(rankers, "all", hybrid=True)
    code, text = refused(capsys, data, "--artifacts", rankers, "--ranker", hybrid.name)
    assert code == 3 and f"the ranker in {hybrid} is hybrid; add --hybrid" in text
    code, text = refused(capsys, data, "--ranker", run_folder(rankers, "all"), "--hybrid")
    assert code == 3 and "is not hybrid; leave out --hybrid" in text


MODULE = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, outputs=5, broken=False):
        super().__init__()
        print("loud")
        self.broken = broken
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(24, outputs)

    def forward(self, images):
        return self.head(self.body(images)) / (0 if self.broken else 1)
"""


def write_zoo(folder: Path, *arguments: dict) -> Path:
    """Write a manifest of a network for each dict of arguments."""
    (folder / "tiny_networks.py").write_text(MODULE)
    rows = []
    for number, own in enumerate(arguments):
        torch.manual_seed(number)
        shapes = {"body.0.weight": (6, 3, 3, 3), "body.0.bias": (6,), "head.weight": (5, 24), "head.bias": (5,)}
        save_file({key: torch.randn(shape) for key, shape in shapes.items()}, folder / f"{number}.safetensors")
        rows.append(
            f"- {{name: tiny-{number}, module: 'tiny_networks:Tiny', arguments: {json.dumps(own)}, "
            f"weights: {number}.safetensors, input: {{size: [16, 16], channels: 3, mean: 0.5, std: 0.25}}}}\n"
        )
    (folder / "zoo.yaml").write_text("models:\n" + "".join(rows))
    return folder / "zoo.yaml"


def test_models_of_ones_own_are_ranked(rankers, arrays, tmp_path):
    zoo, data = write_zoo(tmp_path, {}, {}, {}), save(tmp_path / "my.npz", arrays)
    done = run("recommend.py", data, "--artifacts", rankers, "--laboratory", "--zoo", zoo, "--json", cwd=tmp_path)
    assert done.returncode == 0 and set(done.stderr.split()) == {"loud"}, done.stderr
    content = json.loads(done.stdout)
    assert content["ranker"]["split"] == "foreign" and content["ranker"]["zoo"] == str(zoo)
    assert sorted(model["name"] for model in content["models"]) == ["tiny-0", "tiny-1", "tiny-2"]
    assert content["notes"][-1].startswith("none of these models was ever measured;")
    for model in content["models"]:
        assert 0 < model["low"] < model["expected_accuracy"] < model["high"] < 1
        assert model["domain"] is None and all(near["accuracy"] is None for near in model["nearest"])


def test_models_of_ones_own_that_fail_are_named(rankers, arrays, tmp_path, capsys):
    data = save(tmp_path / "my.npz", arrays)
    code, text = refused(
        capsys, data, "--artifacts", rankers, "--laboratory", "--zoo", write_zoo(tmp_path, {}, {"broken": True})
    )
    assert code == 3 and "model tiny-1 gives values that are not finite" in text
    code, text = refused(
        capsys, data, "--ranker", run_folder(rankers, "all"), "--laboratory", "--zoo", write_zoo(tmp_path, {})
    )
    assert (
        code == 3
        and "was trained with split=all; models of your own need one that was trained with split=foreign." in text
    )
    code, text = refused(capsys, data, "--ranker", run_folder(rankers, "foreign"))
    assert code == 3 and "for the zoo itself train one with split=all." in text


def test_without_a_run_the_shipped_rankers_answer(rankers, arrays, tmp_path, capsys):
    """Right after a clone nothing has been trained."""
    data = save(tmp_path / "my.npz", arrays)
    done = run("recommend.py", "hebrew-4", "--artifacts", tmp_path, "--top", 3)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[1].startswith("ranker shipped (split=all), 96 models of ")
    agreed = float(re.search(r"weighted Kendall of (-?\d\.\d\d)", done.stdout)[1])
    assert agreed > 0.5, "it is trained to the end, unlike those of the other tests"
    plain, hybrid = (ask(capsys, data, "--artifacts", tmp_path, *words) for words in ([], ["--hybrid"]))
    assert [each["ranker"]["run"] for each in (plain, hybrid)] == ["shipped", "shipped"]
    assert hybrid["ranker"]["hybrid"] and plain["models"] != hybrid["models"]
    assert plain["ranker"]["path"] == str(ROOT / "data/zoo/rankers/all")
    zoo = write_zoo(tmp_path, {}, {})
    foreign, both = (
        ask(capsys, data, "--artifacts", tmp_path, "--laboratory", "--zoo", zoo, *words) for words in ([], ["--hybrid"])
    )
    assert foreign["ranker"]["split"] == both["ranker"]["split"] == "foreign" and both["ranker"]["hybrid"]
    # One that the user has trained goes first.
    assert ask(capsys, data, "--artifacts", rankers)["ranker"]["run"] == run_folder(rankers, "all").name


def test_without_any_ranker_the_command_that_trains_one_is_told(tmp_path, arrays, capsys, monkeypatch):
    monkeypatch.setattr(saved_ranker, "SHIPPED_DIR", tmp_path / "none")
    data = save(tmp_path / "my.npz", arrays)
    code, text = refused(capsys, data, "--artifacts", tmp_path)
    assert code == 3 and text == (
        f"error: there is no finished ranker (split = all or A) in {tmp_path}. Train one: "
        "`python train.py SimilarityTransformerTrainer split=all`.\n"
    )
    code, text = refused(capsys, data, "--artifacts", tmp_path, "--hybrid")
    assert code == 3 and text.endswith("`python train.py SimilarityTransformerTrainer split=all hybrid=on`.\n")
    code, text = refused(capsys, data, "--artifacts", tmp_path, "--laboratory", "--zoo", write_zoo(tmp_path, {}))
    assert code == 3 and text.endswith("`python train.py SimilarityTransformerTrainer split=foreign`.\n")


def test_unusable_datasets_are_told_without_a_traceback(rankers, arrays, tmp_path):
    data = save(tmp_path / "my.npz", arrays, labels=np.zeros(40, int))
    done = run("recommend.py", data, "--artifacts", rankers)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == f"error: {data} has 1 class; at least 2 are needed.\n"


def test_unknown_tasks_files_and_runs(rankers, tmp_path, capsys):
    code, text = refused(capsys, "digit2", "--artifacts", rankers)
    assert (
        code == 3
        and "digit2 is neither a file, nor a folder, nor a task of the benchmark; did you mean digits-2" in text
    )
    code, text = refused(capsys, "%%%", "--artifacts", rankers)
    assert code == 3 and "its tasks are digits-" in text
    code, text = refused(capsys, "none.npz", "--artifacts", rankers)
    assert code == 3 and "there is no file or folder none.npz." in text
    code, text = refused(capsys, "digits-2", "--artifacts", rankers, "--ranker", "20000101-000000")
    assert code == 2 and "there is no run '20000101-000000'" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--top", "0"], "argument --top: '0' must be a whole number of at least 1"),
        (["--out", "my.pdf"], "argument --out: 'my.pdf' must end in .png"),
        (["--no-such"], "there is no option --no-such"),
    ],
)
def test_wrong_usage(words, text, capsys):
    with pytest.raises(SystemExit) as left:
        main(["digits-2", *words])
    assert left.value.code == 2 and text in capsys.readouterr().err


def test_a_picture_that_can_not_be_written(rankers, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, text = refused(capsys, "digits-2", "--artifacts", rankers, "--out", tmp_path / "file/my.png")
    assert code == 4 and f"cannot write {tmp_path}/file/my.png" in text


def _spoil_json(folder: Path, **changes) -> None:
    content = json.loads((folder / "ranker.json").read_text())
    (folder / "ranker.json").write_text(json.dumps(content | changes))


def _change_shape(folder: Path, **changes) -> None:
    _spoil_json(folder, shape=json.loads((folder / "ranker.json").read_text())["shape"] | changes)


def _not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({key: value * float("nan") for key, value in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda run: (run / "ranker.json").unlink(), "holds no trained ranker: there is no ranker.json. Train one"),
        (lambda run: (run / "ranker.json").write_text("{"), "ranker.json: Expecting property name"),
        (lambda run: _spoil_json(run, schema_version=9), "has schema version 9, this program reads 1."),
        (lambda run: _spoil_json(run, members="4"), "ranker.json is damaged: members is '4'."),
        (lambda run: _spoil_json(run, encoder="no_module:X"), "encoder = 'no_module:X' can't be loaded"),
        (lambda run: _spoil_json(run, zoo="/no/zoo"), "cannot read the zoo's manifest /no/zoo/zoo.yaml"),
        (lambda run: _spoil_json(run, performance="/no/table"), "there is no table /no/table."),
        (lambda run: _spoil_json(run, codes="/no/codes"), "needs the autoencoder codes /no/codes, which can't be read"),
        (lambda run: _spoil_json(run, split="Z"), "there is no fold 0 of split 'Z'"),
        (lambda run: _change_shape(run, pair_dim=3), "reads pair_dim = 3, but its zoo and table now give 8"),
        (lambda run: _change_shape(run, width=64), "cannot load the ranker's weights"),
        (lambda run: _change_shape(run, colour=1), "cannot load the ranker's weights"),
        (lambda run: (run / "model.safetensors").write_bytes(b"x"), "cannot load the ranker's weights"),
        (lambda run: (run / "model.safetensors").unlink(), "Train it anew: `python train.py Sim"),
        (_not_finite, "holds weights that are not finite."),
    ],
)  # fmt: skip
def test_damaged_rankers_are_told(rankers, tmp_path, capsys, spoil, text):
    folder = tmp_path / "run"
    shutil.copytree(run_folder(rankers, "all"), folder)
    spoil(folder)
    code, shown = refused(capsys, "digits-2", "--ranker", folder)
    assert code == 3 and text in shown


def test_notes_say_what_was_never_measured(rankers, arrays, tmp_path, capsys):
    images, labels = load_domains()["mnist"].select("target_test")
    data = save(tmp_path / "many.npz", {"images": images, "labels": labels})
    notes = ask(capsys, data, "--artifacts", rankers)["notes"]
    assert any(re.search(r"of 3 to 6 classes; for 7 classes the accuracies are extrapolated", note) for note in notes)
    assert any("fine-tuning on 25 images of each class" in note for note in notes)
    two = arrays["labels"] < 3
    few = {"images": arrays["images"][two][::3], "labels": arrays["labels"][two][::3]}
    notes = ask(capsys, save(tmp_path / "few.npz", few), "--artifacts", rankers)["notes"]
    assert any("a class has 3 images, fewer than the 6" in note for note in notes)


def test_intervals_hold_what_they_promise():
    """On made-up tasks whose levels follow from the facts but for noise, nine in ten accuracies are inside."""
    draw = np.random.default_rng(1)
    facts = draw.normal(size=(140, 3))
    scores = draw.normal(size=(140, 20))
    truth = from_logit(1 + facts @ [0.5, -0.3, 0.2] + 0.3 * draw.normal(size=140))
    truth = from_logit(logit(truth)[:, None] + 0.2 * scores + 0.1 * draw.normal(size=(140, 20)))
    known = AccuracyModel(facts[:40], scores[:40], truth[:40], tuple(f"d{i % 16}" for i in range(40)), tuple(range(40)))
    inside, misses = [], []
    for task in range(40, 140):
        expected, low, high = known.predict(facts[task], scores[task])
        inside.append(((low <= truth[task]) & (truth[task] <= high)).mean())
        misses.append(np.abs(expected - truth[task]).mean())
    assert 0.86 < np.mean(inside) < 0.98 and np.mean(misses) < 0.06


def test_facts_do_not_depend_on_order_and_count_no_more_images_than_tasks_have():
    from data.ranking_world import EncodedImages

    draw = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 5, generator=draw), torch.arange(200) % 4
    facts = dataset_facts(EncodedImages(features, labels))
    assert np.isclose(np.exp(facts[:2]), [4, 25]).all()
    order = torch.randperm(200, generator=draw)
    assert np.allclose(dataset_facts(EncodedImages(features[order], 3 - labels[order])), facts)
