"""A population of small networks that were trained in many ways: its plan, its recipe, its files.

`python train.py NetworkPopulationTrainer` trains it; `load_population` reads it. What makes networks differ is drawn
for each: learning rate, length of training, share of the data, wrong labels, weight decay, initial weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from constants import command
from data.data_error import DataError
from data.zoo_images import IMAGES_PATH, VIEWS, ImageDomain, apply_view, load_domains
from model.zoo_families import FAMILIES, OUTPUTS, family_shapes
from storage.files import file_digest, write_atomically, write_json

SCHEMA_VERSION = 1
FOLDS = 10
"""Groups of tasks. A shared initial state belongs to one of them, so a split by groups is one by both."""
FIXED_IMAGES = 64
MANIFEST_NAME = "population.json"
WEIGHTS_NAME = "population.safetensors"
TABLE = ("test_accuracy", "train_accuracy")
"""What is measured of each network: on images that it never saw, and on those that it was trained on (with the labels
that it was trained on)."""
HYPERPARAMETERS = ("learning_rate", "steps", "share", "label_noise", "weight_decay", "init_scale")
_SHARED_STATES = 2  # initial states of each family and fold
_TEST_PART = 3  # one in so many source training images is held out beside the source test images
_MOST_NOISE = 0.4


@dataclass(frozen=True)
class PopulationRecipe:
    """All that decides what a population is.

    Attributes:
        networks: number of networks; a smaller population is the beginning of a larger one.
        steps: fewest and most optimizer steps of a network.
        learning_rate: smallest and largest learning rate of SGD with Nesterov momentum 0.9, falling along a cosine.
        batch_size: images a step.
        seed: seed of the plan.
    """

    networks: int = 3000
    steps: tuple[int, int] = (40, 640)
    learning_rate: tuple[float, float] = (0.002, 0.2)
    batch_size: int = 32
    seed: int = 0


@dataclass(frozen=True)
class PlannedNetwork:
    """One network to train.

    Attributes:
        family: architecture, a key of `model.zoo_families.FAMILIES`.
        domain: name of the image domain.
        view: form in which images are shown, one of `VIEWS`.
        fold: group of tasks that the network's task is in, from 0 to `FOLDS - 1`.
        init_seed: seed of the initial weights.
        shared: whether other networks begin at the same weights.
        seed: seed of the choice and order of images and of wrong labels.
        learning_rate: step size at the start.
        steps: number of optimizer steps.
        share: share of the task's training images that the network sees.
        label_noise: share of them whose label is another class.
        weight_decay: weight decay.
        init_scale: factor of the initial weights; 1 where they are shared.
    """

    family: str
    domain: str
    view: str
    fold: int
    init_seed: int
    shared: bool
    seed: int
    learning_rate: float
    steps: int
    share: float
    label_noise: float
    weight_decay: float
    init_scale: float

    @property
    def task(self) -> str:
        """Name of what the network tells apart: domain and view."""
        return f"{self.domain}-{self.view}"


def plan_population(domains: Mapping[str, ImageDomain], recipe: PopulationRecipe) -> list[PlannedNetwork]:
    """Plan a population. Families take turns, then tasks; what is drawn of a network depends on its number alone."""
    tasks = [(domain, view) for domain in domains for view in VIEWS]
    order = np.random.default_rng([recipe.seed, 0]).permutation(len(tasks))
    planned = []
    for number in range(recipe.networks):
        draw = np.random.default_rng([recipe.seed, 1, number])
        place = (number // len(FAMILIES)) % len(tasks)
        domain, view = tasks[order[place]]
        # Alternating, and the other way round in the next turn through the tasks.
        shared = (number // len(FAMILIES) + number // (len(FAMILIES) * len(tasks))) % 2 == 0
        rate, length, share, decay, scale = draw.random(5)
        state, noisy, noise = int(draw.integers(_SHARED_STATES)), bool(draw.random() < 0.5), float(draw.random())
        planned.append(
            PlannedNetwork(
                family=list(FAMILIES)[number % len(FAMILIES)],
                domain=domain,
                view=view,
                fold=place % FOLDS,
                init_seed=1_000 + (place % FOLDS) * _SHARED_STATES + state if shared else 1_000_000 + number,
                shared=shared,
                seed=number,
                learning_rate=_between(*recipe.learning_rate, rate),
                steps=round(_between(*recipe.steps, length)),
                share=_between(0.1, 1.0, share),
                label_noise=_MOST_NOISE * noise if noisy else 0.0,
                weight_decay=_between(1e-4, 0.03, decay),
                init_scale=1.0 if shared else _between(0.5, 2.0, scale),
            )
        )
    return planned


def _between(low: float, high: float, place: float) -> float:
    return float(low * (high / low) ** place)


def training_images(network: PlannedNetwork, domain: ImageDomain) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a network is trained on: images (n, 12, 12) uint8 and labels (n,) int64, some of them wrong."""
    images, labels = domain.select("source_train")
    kept = np.flatnonzero(~_held_out(len(labels)))
    draw = np.random.default_rng([network.seed, 0])
    chosen = draw.permutation(kept)[: max(OUTPUTS, round(network.share * len(kept)))]
    labels, classes = labels[chosen], len(domain.source_classes)
    shift = draw.integers(1, classes, size=len(labels))
    wrong = draw.random(len(labels)) < network.label_noise
    images = torch.from_numpy(apply_view(images, network.view)[chosen])
    return images, torch.from_numpy(np.where(wrong, (labels + shift) % classes, labels))


def test_images(view: str, domain: ImageDomain) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (n, 12, 12) uint8 and labels (n,) int64 of a task that none of its networks was trained on."""
    images, labels = domain.select("source_train")
    held = _held_out(len(labels))
    more_images, more_labels = domain.select("source_test")
    shown = [apply_view(images, view)[held], apply_view(more_images, view)]
    return torch.from_numpy(np.concatenate(shown)), torch.from_numpy(np.concatenate([labels[held], more_labels]))


test_images.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name


def fixed_images(domains: Mapping[str, ImageDomain]) -> torch.Tensor:
    """Return the images (64, 12, 12) uint8 that every network is shown, whatever it was trained on."""
    each = -(-FIXED_IMAGES // len(domains))
    chosen = []
    for domain in domains.values():
        images, _ = domain.select("source_test")
        chosen.append(images[np.linspace(0, len(images) - 1, each).astype(int)])
    return torch.from_numpy(np.concatenate(chosen)[:FIXED_IMAGES])


def _held_out(count: int) -> np.ndarray:
    return np.arange(count) % _TEST_PART == 0


# ------------------------------------------------------------------------------------------------------------ files


@dataclass(frozen=True)
class Population:
    """Trained networks and what is known of each.

    Attributes:
        path: folder that they were read from.
        planned: how each network was trained.
        vectors: (N, W) fp16, flat parameters of each network, padded with zeros.
        outputs: (N, 64, 10) fp16, each network's logits of the fixed images.
        table: (N,) float64 of each name in `TABLE`.
        test_sizes: (N,) number of images that the test accuracy was measured on.
        digest: SHA-256 of the file of weights.
    """

    path: Path
    planned: tuple[PlannedNetwork, ...]
    vectors: torch.Tensor
    outputs: torch.Tensor
    table: dict[str, np.ndarray]
    test_sizes: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.planned)

    def members(self, family: str) -> np.ndarray:
        """Return the numbers of the networks of a family."""
        return np.flatnonzero([network.family == family for network in self.planned])

    def family_vectors(self, family: str) -> torch.Tensor:
        """Return the flat parameters of a family's networks without padding: (n, parameters) float32."""
        parameters = sum(shape.numel() for shape in family_shapes(family).values())
        return self.vectors[torch.from_numpy(self.members(family)), :parameters].float()

    def first(self, count: int) -> "Population":
        """Return the population of the first `count` networks."""
        table = {name: values[:count] for name, values in self.table.items()}
        parts = self.planned[:count], self.vectors[:count], self.outputs[:count], table, self.test_sizes[:count]
        return Population(self.path, *parts, self.digest)


def recipe_digest(recipe: PopulationRecipe, images: Path = IMAGES_PATH) -> str:
    """Return SHA-256 of all that decides what a population is: recipe, images, architectures, plan."""
    shapes = {family: {name: list(shape) for name, shape in family_shapes(family).items()} for family in FAMILIES}
    content = {"schema": SCHEMA_VERSION, "recipe": asdict(recipe), "images": file_digest(images), "shapes": shapes}
    plan = [asdict(network) for network in plan_population(load_domains(images), recipe)]
    return hashlib.sha256(json.dumps([content, plan], sort_keys=True).encode()).hexdigest()


def save_population(
    folder: Path,
    recipe: PopulationRecipe,
    images: Path,
    vectors: torch.Tensor,
    outputs: torch.Tensor,
    table: Mapping[str, np.ndarray],
) -> None:
    """Write a population: the weights, then the manifest, which names their digest.

    Args:
        folder: where to.
        recipe: what the networks were trained by.
        images: file of the image domains.
        vectors: (N, W) fp16 flat parameters.
        outputs: (N, 64, 10) fp16 logits.
        table: (N,) numbers of each name in `TABLE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"vectors": vectors.contiguous(), "outputs": outputs.contiguous()}
    tensors |= {name: torch.as_tensor(table[name], dtype=torch.float64).contiguous() for name in TABLE}
    write_atomically(folder / WEIGHTS_NAME, lambda path: save_file(tensors, path))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "recipe": asdict(recipe),
        "recipe_digest": recipe_digest(recipe, images),
        "weights_digest": file_digest(folder / WEIGHTS_NAME),
    }
    write_json(folder / MANIFEST_NAME, manifest)


def population_fault(folder: Path, recipe: PopulationRecipe, images: Path = IMAGES_PATH) -> str | None:
    """Say why the population in a folder is not the one that a recipe makes; None where it is."""
    try:
        manifest = _read_manifest(folder)
    except DataError as error:
        return str(error)
    if manifest["recipe_digest"] != recipe_digest(recipe, images):
        return f"the population in {folder} was made by another recipe, or of other images or architectures."
    if file_digest(folder / WEIGHTS_NAME) != manifest["weights_digest"]:
        return f"{folder / WEIGHTS_NAME} is not the file that {MANIFEST_NAME} describes."
    return None


def load_population(folder: Path, images: Path = IMAGES_PATH) -> Population:
    """Read a population.

    Args:
        folder: folder that `save_population` wrote.
        images: file of the image domains that the networks were trained on.

    Raises:
        DataError: there is none, it is damaged, or it is stale: made by a recipe, images or architectures that are no
            longer these.
    """
    manifest = _read_manifest(folder)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["recipe"].items()}
    recipe = PopulationRecipe(**values)
    if fault := population_fault(folder, recipe, images):
        raise DataError(f"{fault} {_remedy()}")
    try:
        tensors = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read {folder / WEIGHTS_NAME}: {error}. {_remedy()}") from error
    domains = load_domains(images)
    planned = tuple(plan_population(domains, recipe))
    sizes = {name: len(test_images("plain", domain)[1]) for name, domain in domains.items()}
    return Population(
        folder,
        planned,
        tensors["vectors"],
        tensors["outputs"],
        {name: tensors[name].numpy() for name in TABLE},
        np.array([sizes[network.domain] for network in planned]),
        manifest["weights_digest"],
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no population in {folder}. {_remedy()}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}. {_remedy()}") from error
    recipe = content.get("recipe") if isinstance(content, dict) else None
    if not isinstance(recipe, dict) or set(recipe) != set(asdict(PopulationRecipe())):
        raise DataError(f"{path} is damaged, or of another version of this program. {_remedy()}")
    if not (folder / WEIGHTS_NAME).is_file():
        raise DataError(f"there is no {folder / WEIGHTS_NAME}. {_remedy()}")
    return content


def _remedy() -> str:
    return f"Train one: `{command('train')} NetworkPopulation`."
