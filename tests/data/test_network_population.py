"""A population's plan and files."""

import json

import numpy as np
import pytest
import torch

from constants import ZOO_DIR
from data.data_error import DataError
from data.network_population import (
    MANIFEST_NAME,
    TABLE,
    WEIGHTS_NAME,
    PopulationRecipe,
    fixed_images,
    load_population,
    plan_population,
    recipe_digest,
    save_population,
    training_images,
)
from data.network_population import test_images as held_out_images
from data.population_batches import split_population
from data.zoo_images import IMAGES_PATH, load_domains
from model.zoo_families import FAMILIES, family_shapes

RECIPE = PopulationRecipe(networks=120)


@pytest.fixture(scope="module")
def domains():
    return load_domains()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(120, 8048, generator=generator).half()
    outputs = torch.randn(120, 64, 10, generator=generator).half()
    table = {name: np.linspace(0.1, 0.9, 120) for name in TABLE}
    save_population(folder, RECIPE, IMAGES_PATH, vectors, outputs, table)
    return folder


def test_a_smaller_population_is_the_beginning_of_a_larger_one(domains):
    assert plan_population(domains, RECIPE) == plan_population(domains, PopulationRecipe(networks=300))[:120]


def test_what_makes_networks_differ_covers_its_range(domains):
    planned = plan_population(domains, PopulationRecipe(networks=960))
    for name, low, high in (
        ("learning_rate", 0.002, 0.2),
        ("steps", 40, 640),
        ("share", 0.1, 1),
        ("init_scale", 0.5, 2),
    ):
        values = np.array([getattr(network, name) for network in planned])
        assert values.min() >= low and values.max() <= high and values.min() < 1.1 * low and values.max() > 0.9 * high
    noise = np.array([network.label_noise for network in planned])
    assert 0.4 < (noise == 0).mean() < 0.6 and 0.35 < noise.max() <= 0.4
    assert {network.family for network in planned} == set(FAMILIES) and len({network.task for network in planned}) == 96
    assert sum(network.shared for network in planned) == 480
    assert len({(n.family, n.init_seed) for n in planned if not n.shared}) == 480
    assert len({(n.family, n.init_seed) for n in planned if n.shared}) == 100


def test_no_task_and_no_initial_state_is_in_two_parts_of_a_split(saved):
    population = load_population(saved)
    seen = []
    for turn in range(5):
        split = split_population(population, turn)
        parts = [[population.planned[number] for number in part] for part in vars(split).values()]
        assert sum(map(len, parts)) == len(population)
        for what in (lambda n: n.task, lambda n: (n.family, n.init_seed)):
            sets = [{what(network) for network in part} for part in parts]
            assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
        seen += split.test.tolist()
    assert sorted(seen) == list(range(120)), "the five test parts are the whole"


def test_images_of_the_test_are_not_trained_on(domains):
    for network in plan_population(domains, RECIPE)[:5]:
        domain = domains[network.domain]
        images, labels = training_images(network, domain)
        unseen, truth = held_out_images(network.view, domain)
        if network.view != "noisy":  # whose noise is drawn by the array
            assert (
                len({image.numpy().tobytes() for image in unseen} & {image.numpy().tobytes() for image in images}) <= 20
            )
        assert len(labels) == max(10, round(network.share * (len(domain.select("source_train")[1]) * 2 // 3)))
        assert len(truth) > 400 and set(truth.tolist()) == set(range(len(domain.source_classes)))
    assert fixed_images(domains).shape == (64, 12, 12)


def test_it_comes_back_as_it_was_saved(saved):
    population = load_population(saved)
    assert len(population) == 120 and population.vectors.dtype == torch.float16
    assert population.table["test_accuracy"][-1] == 0.9
    shapes = family_shapes("cnn3").values()
    own = population.family_vectors("cnn3")
    assert own.shape == (24, sum(shape.numel() for shape in shapes))
    assert torch.equal(own[1], population.vectors[5, : own.shape[1]].float())
    assert len(population.first(50)) == 50 and population.first(50).planned == population.planned[:50]


def test_a_stale_or_damaged_population_is_told(saved, tmp_path):
    manifest = json.loads((saved / MANIFEST_NAME).read_text())
    weights = (saved / WEIGHTS_NAME).read_bytes()

    def told(content: dict, data: bytes = weights) -> str:
        (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
        (tmp_path / WEIGHTS_NAME).write_bytes(data)
        with pytest.raises(DataError) as error:
            load_population(tmp_path)
        return str(error.value)

    assert "made by another recipe" in told(manifest | {"recipe_digest": "0" * 64})
    assert "made by another recipe" in told(manifest | {"recipe": manifest["recipe"] | {"seed": 1}})
    assert "is not the file that population.json describes" in told(manifest, weights[:-2] + b"00")
    assert "is damaged" in told(manifest | {"recipe": {"networks": 3}})
    with pytest.raises(DataError, match=r"there is no population in .*nowhere. Train one: `python train.py Network"):
        load_population(tmp_path / "nowhere")


def test_the_recipe_is_the_committed_one():
    """A population that lies in artifacts/ is stale by this digest; who changes the plan commits the new one."""
    committed = json.loads((ZOO_DIR / "population.json").read_text())
    assert committed["recipe_digest"] == recipe_digest(PopulationRecipe())
