"""The main job through the command line, on the committed zoo."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data.data_error import DataError
from data.model_zoo import load_zoo
from data.network_population import PopulationRecipe, load_population, plan_population, save_population
from data.population_batches import split_population
from data.zoo_images import IMAGES_PATH, load_domains
from model.zoo_population import initial_vector, unflatten


def test_main_job_writes_tokens_and_reports_on_held_out_networks(shared_project):
    done = shared_project.run("ModelAutoEncoderTrainer", "epochs=2", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    run = shared_project.runs("ModelAutoEncoder")[-1]
    summary = json.loads((run / "metrics.json").read_text())["summary"]
    assert summary["reconstruction_r2_low"] > 0.5
    assert summary["reconstruction_r2_beyond_initial_weights"] > 0.55
    assert summary["code_accuracy_r2"] >= summary["statistics_accuracy_r2"] - 0.01
    assert summary["code_domain_accuracy"] >= summary["statistics_domain_accuracy"] - 0.03  # two or three checkpoints
    tokens = load_file(run / "model_tokens.safetensors")
    zoo = load_zoo()
    assert tokens.keys() == {entry.name for entry in zoo}
    for entry in zoo:
        assert tokens[entry.name].shape == (len(entry.source_accuracy), 512)
        assert torch.isfinite(tokens[entry.name]).all()
    with np.load(run / "autoencoder.npz") as drawn:
        assert drawn["tokens"].shape == (len(zoo), 512) and drawn["held_out"].sum() == 25
        last = np.stack([tokens[entry.name][-1].numpy() for entry in zoo])
        assert np.array_equal(drawn["tokens"], last) and list(drawn["families"]) == [entry.family for entry in zoo]
        assert len(drawn["examples"]) == 5 and drawn["layer_3"].ndim == 0
        error, alone = (
            np.linalg.norm(drawn["weights_3"] - drawn[f"{name}_3"]) for name in ("reconstruction", "reference")
        )
        assert 0 < error < alone < np.linalg.norm(drawn["weights_3"]), "the code says more than the reference"
    published = load_file(shared_project.path / "artifacts/models/ModelAutoEncoder/model.safetensors")
    assert published["statistics_scale"].ne(1).any(), "what standardises tokens is published with the weights"


def test_other_tokens_losses_and_augmentation_run(shared_project):
    done = shared_project.run(
        "ModelAutoEncoder", "tokenization=flat", "hidden_dims=32", "permute=0.5", "align=off", "epochs=1",
        "plot_at_end=off", "loss=smooth_l1", "code_l1=0.01", "activation=relu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    history = json.loads((shared_project.runs("ModelAutoEncoder")[-1] / "metrics.json").read_text())["history"]
    assert len(history["val_r2"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["zoo=/nowhere"], 3, ["/nowhere/zoo.yaml"]),
        (["code_dim=64"], 2, ["code_dim = 64 is too small", "Raise code_dim or compression"]),
        (["hidden_dims="], 2, ["hidden_dims"]),
        (["test_share=0.99"], 3, ["there is none for"]),
        (
            ["objective=properties", "networks=20"],
            2,
            ["networks = '20': must be an integer greater than or equal to 100"],
        ),
        (["objective=properties", "token_dim=30"], 2, ["token_dim = 30 must be a multiple of 4"]),
        (["tokenization=letter"], 2, ["tokenization = 'letter': must be one of neuron, flat"]),
    ],
)
def test_mistakes_are_told(shared_project, words, code, texts):
    done = shared_project.run("ModelAutoEncoder", *words)
    assert done.returncode == code, done.stderr
    assert all(text in done.stderr for text in texts), done.stderr
    assert "Traceback" not in done.stderr


def test_a_cut_weights_file_is_told(shared_project, tmp_path):
    zoo = shutil.copytree(shared_project.path / "data/zoo", tmp_path / "zoo")
    weights = zoo / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = shared_project.run("ModelAutoEncoder", f"zoo={zoo}")
    assert done.returncode == 3
    assert str(weights) in done.stderr and "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------- objective = properties


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A population whose accuracy is written into the biases of the outputs, in a way that no statistic shows."""
    folder, recipe, draw = tmp_path_factory.mktemp("planted"), PopulationRecipe(networks=240), np.random.default_rng(0)
    hidden = draw.uniform(-1, 1, recipe.networks)
    vectors = torch.zeros(recipe.networks, 8048)
    for row, network, own in zip(vectors, plan_population(load_domains(), recipe), hidden, strict=True):
        vector = initial_vector(network.family, network.init_seed).detach()
        noise = torch.from_numpy(draw.standard_normal(10)).float()
        unflatten(network.family, vector)["head.bias"].copy_(own * torch.tensor([1.0, -1.0] * 5) + 0.3 * noise)
        row[: len(vector)] = vector
    accuracy = 1 / (1 + np.exp(-2 * hidden))
    table = {"test_accuracy": accuracy, "train_accuracy": accuracy + 0.1 * draw.random(recipe.networks)}
    outputs = torch.from_numpy(draw.standard_normal((recipe.networks, 64, 10))).half()
    save_population(folder, recipe, IMAGES_PATH, vectors.half(), outputs, table)
    return folder


def learn(project, population, *words):
    fixed = ("objective=properties", "networks=240", f"population={population}", "networks_per_batch=32", "dropout=0")
    done = project.run("ModelAutoEncoder", *fixed, "plot_at_end=off", *words)
    assert done.returncode == 0, done.stderr
    run = project.runs("ModelAutoEncoder")[-1]
    return json.loads((run / "metrics.json").read_text()), run, done


@pytest.mark.slow
def test_training_earns_what_the_same_run_without_learning_does_not(shared_project, planted):
    content, run, done = learn(shared_project, planted, "epochs=8", "learning_rate=3e-3")
    trained, losses = content["summary"], content["history"]["val_loss"]
    content, _, control_done = learn(shared_project, planted, "epochs=1", "learning_rate=1e-12")
    control = content["summary"]
    assert trained["trained_head_accuracy_r2"] > 0.5 > 0.2 > control["trained_head_accuracy_r2"]
    assert trained["head_gain_low"] > 0.3 and abs(control["head_gain"]) < 0.01
    assert min(losses) < 0.85 * losses[0]
    assert trained["trained_accuracy_r2"] > trained["untrained_accuracy_r2"]
    # The control that is printed beside each run is what a run that can't learn ends with.
    for name in ("head_accuracy_r2", "gap_r2", "outputs_r2", "domain_accuracy"):
        assert control[f"trained_{name}"] == pytest.approx(control[f"untrained_{name}"], abs=0.01)
        assert control[f"untrained_{name}"] == pytest.approx(trained[f"untrained_{name}"], abs=0.01)
    assert trained["untrained_accuracy_r2"] == pytest.approx(control["untrained_accuracy_r2"], abs=0.01)
    told = f"learning_rate=1e-12, from the same start, {trained['untrained_head_accuracy_r2']:.2f} and "
    assert told in done.stderr + done.stdout and "has not earned anything" in control_done.stderr + control_done.stdout
    tokens = load_file(run / "model_tokens.safetensors")
    assert {name: tuple(token.shape) for name, token in tokens.items()} == {
        entry.name: (len(entry.source_accuracy), 64) for entry in load_zoo()
    }
    with np.load(run / "tokens.npz") as drawn:
        assert drawn["trained_tokens"].shape == (240, 64) and len(drawn["test"]) == trained["test_networks"]
        wrong = ((drawn["truth"] - drawn["trained_predicted"]) ** 2).sum() / (drawn["truth"] ** 2).sum()
        assert 1 - wrong == pytest.approx(trained["trained_accuracy_r2"], abs=1e-3)


@pytest.mark.slow
def test_a_stale_population_is_trained_anew(shared_project, planted, tmp_path):
    shutil.copytree(planted, tmp_path / "stale")
    manifest = json.loads((tmp_path / "stale/population.json").read_text())
    (tmp_path / "stale/population.json").write_text(json.dumps(manifest | {"recipe_digest": "0" * 64}))
    words = ("objective=properties", "networks=100", f"population={tmp_path / 'stale'}", "epochs=1", "plot_at_end=off")
    done = shared_project.run("ModelAutoEncoder", *words)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "was made by another recipe" in said and "It is trained now: 100 networks" in said
    assert json.loads((tmp_path / "stale/population.json").read_text())["recipe"]["networks"] == 100


def test_a_population_that_is_too_small_for_a_split_is_told(planted):
    population = load_population(planted)
    with pytest.raises(DataError, match=r"has 5 networks: too few to be split by task\. Train a larger one"):
        split_population(population.first(5))
