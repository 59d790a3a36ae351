"""A population as data for the encoder of networks: who is in which split, what is asked, and batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.data_error import DataError
from data.network_population import FOLDS, Population
from data.tensor_loader import epoch_generator
from model.network_encoder import NetworkEncoder, Networks

OUTPUT_COMPONENTS = 32
_TEST_FOLDS, _VAL_FOLDS = 2, 1


@dataclass(frozen=True)
class PopulationSplit:
    """Numbers of a population's networks. No task and no initial state is in two parts.

    Attributes:
        train: networks that are learnt from.
        val: networks that early stopping looks at.
        test: networks that are reported on, and used for nothing else.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_population(population: Population, turn: int = 0) -> PopulationSplit:
    """Split a population by groups of tasks, which have initial states of their own: 70, 10 and 20 %.

    Args:
        population: networks to split.
        turn: which of five splits; their test parts have no network in common.
    """
    fold = (np.array([network.fold for network in population.planned]) - _TEST_FOLDS * turn) % FOLDS
    test, val = fold < _TEST_FOLDS, fold == _TEST_FOLDS
    parts = [np.flatnonzero(part) for part in (~test & ~val, val, test)]
    if not all(map(len, parts)):
        raise DataError(
            f"the population in {population.path} has {len(population)} networks: too few to be split by task. "
            "Train a larger one: `networks = 300` of NetworkPopulationTrainer, or more."
        )
    return PopulationSplit(*parts)


def within_task(population: Population) -> np.ndarray:
    """Return each network's test accuracy as a logit, less the mean of its task: (N,) float64."""
    accuracy = population.table["test_accuracy"].clip(0.01, 0.99)
    return centred(np.log(accuracy / (1 - accuracy)), task_numbers(population))


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Take off each group's mean."""
    return values - (np.bincount(groups, values) / np.maximum(np.bincount(groups), 1))[groups]


def task_numbers(population: Population) -> np.ndarray:
    """Return the number of each network's task: (N,) int64."""
    return np.unique([network.task for network in population.planned], return_inverse=True)[1]


@dataclass(frozen=True)
class Targets:
    """What an encoder is trained to tell of each of N networks, standardised by the training networks.

    Attributes:
        accuracy: (N,) logit of the test accuracy less the task's mean.
        gap: (N,) train accuracy less test accuracy.
        domain: (N,) int64 number of the image domain.
        outputs: (N, 32) principal components of the network's probabilities on the fixed images, of each the largest
            first.
        task: (N,) int64 number of the task; not asked for, but ranked within.
    """

    accuracy: torch.Tensor
    gap: torch.Tensor
    domain: torch.Tensor
    outputs: torch.Tensor
    task: torch.Tensor

    def rows(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return those of some networks, by name."""
        return {name: tensor[index] for name, tensor in vars(self).items()}


def make_targets(population: Population, train: np.ndarray) -> Targets:
    """Make targets; what standardises them comes from the networks `train`."""
    gap = population.table["train_accuracy"] - population.table["test_accuracy"]
    domain = np.unique([network.domain for network in population.planned], return_inverse=True)[1]
    # Largest first: which class a task's third is differs from task to task, how sure a network is does not.
    shown = population.outputs.float().softmax(2).sort(2, descending=True).values.flatten(1).double()
    mean = shown[train].mean(0)
    axes = torch.linalg.svd(shown[train] - mean, full_matrices=False).Vh[:OUTPUT_COMPONENTS]
    outputs = (shown - mean) @ axes.T
    outputs = torch.nn.functional.pad(outputs, (0, OUTPUT_COMPONENTS - outputs.shape[1]))
    return Targets(
        _standardised(within_task(population), train),
        _standardised(gap, train),
        torch.from_numpy(domain),
        (outputs / outputs[train].square().sum(1).mean().sqrt()).float(),  # 1 is the error of saying nothing
        torch.from_numpy(task_numbers(population)),
    )


def _standardised(values: np.ndarray, train: np.ndarray) -> torch.Tensor:
    scale = values[train].std() or 1.0
    return torch.from_numpy((values - values[train].mean()) / scale).float()


def prepare_networks(population: Population, encoder: NetworkEncoder) -> dict[str, Networks]:
    """Make all networks of a population ready for an encoder, by family."""
    return {family: encoder.prepare(population.family_vectors(family), family) for family in encoder.families}


class PopulationBatches:
    """Batches of networks of all families, those of a task together as far as they go, so that they can be ranked.

    Args:
        networks: all networks of the population by family, see `prepare_networks`.
        population: population that the networks are of.
        targets: what is asked of them.
        chosen: numbers of the networks that batches are made of.
        batch_size: networks a batch.
        shuffle: draw a new order of tasks and networks each epoch.
        seed: seed of the order.
    """

    def __init__(
        self,
        networks: Mapping[str, Networks],
        population: Population,
        targets: Targets,
        chosen: np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self._networks, self._targets = networks, targets
        self._chosen = torch.from_numpy(chosen)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        self.draws_by_epoch = True  # the order follows from (seed, epoch), not from the global random numbers
        self._place = {family: _places(population.members(family), len(population)) for family in networks}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass uses."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._chosen) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give batches: `networks` by family, and targets in the order in which the encoder gives codes."""
        order = self._chosen
        if self.shuffle:
            generator = epoch_generator(self.seed, self.epoch)
            self.epoch += 1
            order = order[torch.randperm(len(order), generator=generator)]
            tasks = torch.randperm(int(self._targets.task.max()) + 1, generator=generator)
            order = order[tasks[self._targets.task[order]].argsort(stable=True)]
        for numbers in order.split(self.batch_size):
            yield self.batch(numbers)

    def batch(self, numbers: torch.Tensor) -> dict[str, Any]:
        """Return the batch of some networks of the population."""
        networks, order = {}, []
        for family, place in self._place.items():
            own = numbers[place[numbers] >= 0]
            if len(own):
                networks[family] = self._networks[family].rows(place[own])
                order.append(own)
        ordered = torch.cat(order)
        return {"networks": networks, "numbers": ordered, "batch_size": len(ordered)} | self._targets.rows(ordered)


def _places(members: Sequence[int] | np.ndarray, count: int) -> torch.Tensor:
    places = torch.full((count,), -1)
    places[torch.as_tensor(members)] = torch.arange(len(members))
    return places
