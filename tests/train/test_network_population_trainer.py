"""NetworkPopulationTrainer through the command line; one network trained again by hand."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from warm_python import run_python

from constants import PROJECT_ROOT
from data.network_population import fixed_images, load_population
from data.network_population import test_images as held_out_images
from data.population_loader import CohortLoader, cohorts_of
from data.zoo_images import load_domains
from data.zoo_tasks import to_input
from model.zoo_families import build_family
from model.zoo_population import initial_vector, unflatten

WORDS = ("networks=20", "cohort=3", "fewest_steps=3", "most_steps=8", "batch_size=4", "lowest_rate=0.05")


def train(artifacts: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["train.py", "NetworkPopulation", f"artifacts_dir={artifacts}", "plot_at_end=off", *words]
    return run_python(command, PROJECT_ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = train(folder, *WORDS, f"population={folder / 'population'}")
    assert done.returncode == 0, done.stderr
    return folder


def by_hand(network, domain, steps):
    """Train a network as the plan says, with a loop of its own. Returns its parameters (parameters,)."""
    vector = initial_vector(network.family, network.init_seed).detach()
    for part in unflatten(network.family, vector).values():
        if part.dim() > 1:
            part.mul_(network.init_scale)
    loader = CohortLoader([network], [[0]], {network.domain: domain}, 4, steps)
    skeleton, buffer = build_family(network.family), torch.zeros_like(vector)
    for step, batch in zip(range(network.steps), loader, strict=False):
        assert batch["labels"].shape == (1, 4)
        vector.requires_grad_()
        logits = functional_call(skeleton, unflatten(network.family, vector), (batch["images"][0],))
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, batch["labels"][0]), vector)
        rate = network.learning_rate * 0.5 * (1 + math.cos(math.pi * step / network.steps))
        vector = vector.detach()
        gradient = rate * (gradient * min(1.0, 5.0 / float(gradient.norm())) + network.weight_decay * vector)
        buffer = 0.9 * buffer + gradient
        vector = vector - gradient - 0.9 * buffer
    # Those that train longer let it run on with what momentum is left.
    for _ in range(steps - network.steps):
        buffer = 0.9 * buffer
        vector = vector - 0.9 * buffer
    return vector


def test_a_network_comes_out_as_by_hand(trained):
    population, domains = load_population(trained / "population"), load_domains()
    cohorts = cohorts_of(population.planned, 3)
    assert sorted(number for cohort in cohorts for number in cohort) == list(range(20)) and len(cohorts) == 10
    for number in (0, 3, 4):  # cnn3, mlp, mixer
        network = population.planned[number]
        vector = by_hand(network, domains[network.domain], 8)
        kept = population.vectors[number, : len(vector)].float()
        torch.testing.assert_close(kept, vector, rtol=2e-3, atol=2e-3)
        assert (vector - initial_vector(network.family, network.init_seed)).abs().max() > 0.02, "it was trained"
        images, labels = held_out_images(network.view, domains[network.domain])
        state, skeleton = unflatten(network.family, vector), build_family(network.family)
        right = functional_call(skeleton, state, (to_input(images),)).argmax(1) == labels
        assert abs(float(right.float().mean()) - population.table["test_accuracy"][number]) < 0.02
        shown = functional_call(skeleton, state, (to_input(fixed_images(domains)),))
        torch.testing.assert_close(population.outputs[number].float(), shown, rtol=0.02, atol=0.05)


def test_the_summary_is_that_of_the_population(trained):
    (run,) = (trained / "models/NetworkPopulation/runs").iterdir()
    summary = json.loads((run / "metrics.json").read_text())["summary"]
    population = load_population(trained / "population")
    assert summary["networks"] == 20
    assert summary["test_accuracy"] == round(float(population.table["test_accuracy"].mean()), 4)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["networks=3"], "networks = '3': must be an integer greater than or equal to 20"),
        (["fewest_steps=9", "most_steps=8"], "fewest_steps = 9 is above most_steps = 8"),
        (["lowest_rate=1"], "lowest_rate = 1.0 is above learning_rate = 0.2"),
    ],
)
def test_mistakes_are_told(tmp_path, words, text):
    done = train(tmp_path, *words)
    assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr, done.stderr
