"""GroundTruthTrainer through the command line, with a small zoo; one fine-tuning done again by hand."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from warm_python import run_python

from constants import PROJECT_ROOT
from data.benchmark_results import load_results
from data.benchmark_tasks import plan_benchmark
from data.fine_tune_batches import FineTuneLoader
from data.model_zoo import load_zoo, save_zoo
from data.zoo_images import load_domains, save_domains
from data.zoo_tasks import to_input
from model.zoo_families import FAMILIES

STEPS, SEEDS, BATCH = 4, 2, 16
TABLE = "dataset_model_performance.json"


def train(artifacts: Path, *words: str) -> subprocess.CompletedProcess:
    """Run `python train.py GroundTruthTrainer` with a folder of its own for what it writes."""
    command = ["train.py", "GroundTruthTrainer", f"artifacts_dir={artifacts}", "plot_at_end=off", *words]
    return run_python(command, PROJECT_ROOT)


def only_run(artifacts: Path) -> Path:
    (run,) = (artifacts / "models" / "GroundTruth" / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two networks of each family, in a folder of their own."""
    whole, path = load_zoo(), tmp_path_factory.mktemp("zoo") / "zoo"
    members = [[entry for entry in whole if entry.family == family][number] for family in FAMILIES for number in (0, 9)]
    save_zoo(path, members, whole.domains)
    return load_zoo(path)


@pytest.fixture(scope="module")
def words(zoo):
    return (
        f"zoo={zoo.path}",
        "epochs=2",
        f"fine_tune_steps={STEPS}",
        f"fine_tune_seeds={SEEDS}",
        f"batch_size={BATCH}",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, words):
    """The run folder of an uninterrupted run over two tasks."""
    artifacts = tmp_path_factory.mktemp("whole")
    done = train(artifacts, *words, "keep_last_checkpoints=9")
    assert done.returncode == 0, done.stderr
    return only_run(artifacts)


def test_run_folder_holds_the_table_and_its_summary(finished, zoo):
    tasks = plan_benchmark(load_domains())[:2]
    content = json.loads((finished / TABLE).read_text())
    assert list(content["tasks"]) == [task.name for task in tasks]
    assert content["models"] == [entry.name for entry in zoo]
    for task in tasks:
        row = content["tasks"][task.name]
        accuracy = np.array(row["accuracy"])
        assert accuracy.shape == (10, SEEDS) and row["seeds"] == SEEDS
        assert 0 <= accuracy.min() < accuracy.max() <= 1 and accuracy.std() > 0.001
        answers = accuracy * len(task.test_rows)
        assert np.abs(answers - answers.round()).max() < 5.1e-5 * len(task.test_rows), "whole numbers of right answers"
    assert content["about"]["zoo_digest"] == zoo.digest
    found = json.loads((finished / "metrics.json").read_text())
    table = load_results(finished / TABLE)
    assert found["state"] == "finished"
    assert found["summary"]["tasks"] == len(table.tasks) and found["summary"]["dropped"] == table.dropped
    assert len(found["history"]["val_accuracy"]) == 2


def by_hand(entry, copy: int, task_number: int) -> tuple[torch.Tensor, float]:
    """Fine-tune one network alone: SGD with Nesterov momentum, weight decay and half a cosine, written out."""
    tasks = plan_benchmark(load_domains())[:2]
    loader = FineTuneLoader(tasks, BATCH, STEPS, SEEDS, seed=0)
    loader.set_epoch(task_number)
    network = entry.load_model()
    for name, parameter in network.named_parameters():
        if name.startswith("head."):
            torch.nn.init.zeros_(parameter)
    parameters = list(network.parameters())
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    for step, batch in enumerate(loader):
        logits = network(batch["images"][copy])[:, : batch["classes"]]
        gradients = torch.autograd.grad(F.cross_entropy(logits, batch["labels"][copy]), parameters)
        rate = 0.03 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        with torch.no_grad():
            for parameter, gradient, moving in zip(parameters, gradients, velocity, strict=True):
                gradient += 0.001 * parameter
                moving.mul_(0.9).add_(gradient)
                parameter.sub_(rate * (gradient + 0.9 * moving))
    test = tasks[task_number].test
    with torch.no_grad():
        logits = network(to_input(torch.from_numpy(test.images)))[:, : len(test.class_names)]
    accuracy = (logits.argmax(1).numpy() == test.labels).mean()
    return torch.nn.utils.parameters_to_vector(parameters).detach(), float(accuracy)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fine_tuning_is_that_of_one_network_alone(finished, zoo, family):
    """The second task: pre-trained weights, no momentum of the first, the learning rate from its start."""
    number = next(place for place, entry in enumerate(zoo) if entry.family == family) + 1  # the family's second
    vectors = load_file(finished / "model.safetensors")[f"vectors.{family}"].unflatten(0, (2, SEEDS))
    table = json.loads((finished / TABLE).read_text())
    for copy in range(SEEDS):
        alone, accuracy = by_hand(zoo.entries[number], copy, task_number=1)
        assert torch.allclose(vectors[1, copy], alone, atol=1e-4)
        moved = (vectors[1, copy] - zoo.entries[number].vector()).abs().max()
        assert moved > 1e-2
        rows = list(table["tasks"].values())
        tested = rows[1]["test_images"]
        assert rows[1]["accuracy"][number][copy] == pytest.approx(accuracy, abs=1.5 / tested)
        assert rows[0]["accuracy"][number][copy] == pytest.approx(
            by_hand(zoo.entries[number], copy, task_number=0)[1], abs=1.5 / rows[0]["test_images"]
        )


def test_resumed_run_writes_the_same_table_as_one_that_was_not_interrupted(finished, words, tmp_path):
    shutil.copytree(finished.parent, tmp_path / "models" / "GroundTruth" / "runs")
    run = only_run(tmp_path)
    shutil.rmtree(run / "checkpoints" / "epoch-00002")  # as if it had been cut after its first task
    for name in (TABLE, "model.safetensors"):
        (run / name).unlink()
    done = train(tmp_path, *words, "keep_last_checkpoints=9", "--resume")
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path) == run
    assert (run / TABLE).read_text() == (finished / TABLE).read_text()


def test_a_run_is_not_gone_on_with_where_its_buffers_begin_otherwise(finished, tmp_path):
    """The table of accuracies is a buffer with a row for each epoch; of other settings it has other rows."""
    run = shutil.copytree(finished, tmp_path / "run")
    done = train(tmp_path, "--resume", run, "epochs=3")
    assert done.returncode == 2 and "does not fit GroundTruthTrainer as it is now" in done.stderr, done.stderr
    assert "the buffer accuracies began with the shape (2, 10, 2), and now has (3, 10, 2)" in done.stderr


def test_publishing_part_of_the_benchmark_is_refused(words, tmp_path):
    done = train(tmp_path, *words, "publish=on", f"performance={tmp_path / 'table.json'}")
    assert done.returncode == 2
    assert "publish = on needs all 64 tasks, but epochs = 2; leave epochs out." in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "table.json").exists()


def test_published_table_is_the_run_s(zoo, tmp_path):
    """A benchmark of two domains has eight tasks, however many epochs are asked for."""
    domains = load_domains()
    save_domains({name: domains[name] for name in ("digits", "greek")}, tmp_path / "images.npz")
    words = (f"zoo={zoo.path}", f"images={tmp_path / 'images.npz'}", "fine_tune_steps=1", "fine_tune_seeds=3")
    done = train(tmp_path / "artifacts", *words, "publish=on", f"performance={tmp_path / 'table.json'}")
    assert done.returncode == 0, done.stderr
    published = (tmp_path / "table.json").read_text()
    assert published == (only_run(tmp_path / "artifacts") / TABLE).read_text()
    rows = json.loads(published)["tasks"]
    assert list(rows) == [f"{domain}-{number}" for domain in ("digits", "greek") for number in (1, 2, 3, 4)]
    assert {row["seeds"] for row in rows.values()} == {3}


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        ("images=/nowhere/images.npz", 3, "there is no image file /nowhere/images.npz"),
        ("fine_tune_seeds=1", 2, "fine_tune_seeds"),
    ],
)
def test_bad_settings_end_in_one_clear_error(tmp_path, word, code, text):
    done = train(tmp_path, word)
    assert done.returncode == code, done.stderr
    assert text in done.stderr and "Traceback" not in done.stderr
