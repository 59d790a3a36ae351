"""Loaders that feed a population in training: an epoch is a cohort, some networks of one family."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from data.network_population import PlannedNetwork, test_images, training_images
from data.zoo_images import ImageDomain
from data.zoo_tasks import IGNORED_LABEL, to_input


def cohorts_of(planned: Sequence[PlannedNetwork], size: int) -> list[list[int]]:
    """Group networks into cohorts of one family, the longest trainings of a cohort first.

    Returns:
        Of each cohort the numbers of its networks, at most `size`.
    """
    cohorts = []
    for family in dict.fromkeys(network.family for network in planned):
        members = [number for number, network in enumerate(planned) if network.family == family]
        for start in range(0, len(members), size):
            cohorts.append(sorted(members[start : start + size], key=lambda number: -planned[number].steps))
    return cohorts


class CohortLoader:
    """Batches of one cohort an epoch; a network whose training is over is no longer in them.

    Args:
        planned: how each network is trained.
        cohorts: numbers of the networks of each cohort, the longest trainings first.
        domains: image domains by name.
        batch_size: images a step of each network.
        steps: batches an epoch: the most steps of any network.
    """

    def __init__(
        self,
        planned: Sequence[PlannedNetwork],
        cohorts: Sequence[Sequence[int]],
        domains: Mapping[str, ImageDomain],
        batch_size: int,
        steps: int,
    ) -> None:
        self.planned, self.cohorts, self.domains = planned, cohorts, domains
        self.batch_size, self.steps, self.epoch = batch_size, steps, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the cohort, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def members(self) -> list[PlannedNetwork]:
        """Return how the networks of the cohort at hand are trained."""
        return [self.planned[number] for number in self.cohorts[self.epoch]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give batches: see `NetworkPopulationTrainer._forward_batch`."""
        members = self.members()
        sets = [training_images(network, self.domains[network.domain]) for network in members]
        # All images below each other: a batch is then one gather instead of one for each network.
        images, labels = (torch.cat([own[part] for own in sets]) for part in (0, 1))
        starts = np.cumsum([0, *(len(own_labels) for _, own_labels in sets[:-1])])
        rows = torch.stack(
            [
                start + self._order(network, len(own[1]))
                for network, own, start in zip(members, sets, starts, strict=True)
            ]
        )
        lengths = torch.tensor([network.steps for network in members])
        rates = torch.tensor([network.learning_rate for network in members])
        decays = torch.tensor([network.weight_decay for network in members])
        for step in range(self.steps):
            active = max(1, int((lengths > step).sum()))
            chosen = rows[:active, step * self.batch_size : (step + 1) * self.batch_size]
            falling = 0.5 * (1 + torch.cos(torch.pi * (step / lengths).clamp(max=1)))
            yield {
                "family": members[0].family,
                "images": to_input(images[chosen]),
                "labels": labels[chosen],
                "rates": (rates * falling)[:active],
                "decays": decays[:active],
            }

    def _order(self, network: PlannedNetwork, count: int) -> torch.Tensor:
        """Return the rows (steps x batch size,) that a network sees; padded with its first where it needs fewer."""
        needed = network.steps * self.batch_size
        draw = np.random.default_rng([network.seed, 1])
        passes = np.concatenate([draw.permutation(count) for _ in range(-(-needed // count))])[:needed]
        return torch.from_numpy(np.pad(passes, (0, self.steps * self.batch_size - needed)))


class CohortTestLoader:
    """One batch: what the networks of the cohort that was trained last are tested on.

    Args:
        train_loader: loader that knows the cohort.
    """

    def __init__(self, train_loader: CohortLoader) -> None:
        self._train_loader = train_loader

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        members, domains = self._train_loader.members(), self._train_loader.domains
        seen = [training_images(network, domains[network.domain]) for network in members]
        unseen = [test_images(network.view, domains[network.domain]) for network in members]
        yield {
            "family": members[0].family,
            "networks": torch.tensor(self._train_loader.cohorts[self._train_loader.epoch]),
            "train": _padded(seen),
            "test": _padded(unseen),
        }


def _padded(sets: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack sets of images of unequal length: (n, longest, 12, 12) uint8 and (n, longest), -100 where there is none."""
    longest = max(len(labels) for _, labels in sets)
    images = torch.zeros(len(sets), longest, 12, 12, dtype=torch.uint8)
    labels = torch.full((len(sets), longest), IGNORED_LABEL)
    for number, (own_images, own_labels) in enumerate(sets):
        images[number, : len(own_labels)], labels[number, : len(own_labels)] = own_images, own_labels
    return images, labels
