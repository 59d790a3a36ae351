"""Describes the zoo: what each network does with images, by scores that need no fine-tuning."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

import constants  # noqa: F401  (first: it tells beautilog where its settings are)
from data.benchmark_tasks import LabelledImages, plan_benchmark
from data.data_error import DataError
from data.model_zoo import ModelZoo, load_zoo
from data.zoo_descriptions import DESCRIPTIONS_PATH, ZooDescriptions, probe_sets, save_descriptions
from data.zoo_images import load_domains
from evaluation.ranking.responses import Responses, respond_to_sets, stack_by_width
from evaluation.ranking.transferability import ALL_FEATURE_SCORES, ALL_PROBABILITY_SCORES

PROBE_SCORES = ("log_me", "nearest_centroid", "centroid_margin", "nce")
"""What the responses to a probe set are summed up by."""


def score_responses(
    responses: Sequence[Responses], labels: torch.Tensor, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Compute transferability scores of N networks on one task.

    Args:
        responses: features and probabilities of each network for the task's n images.
        labels: (n,) int64 class of each image.
        names: names of the scores to compute; None for all there are.

    Returns:
        (N,) float64 scores, by name of the score.
    """
    wanted = [*ALL_FEATURE_SCORES, *ALL_PROBABILITY_SCORES] if names is None else names
    scores = {name: np.zeros(len(responses)) for name in wanted}
    for places, features, probabilities in stack_by_width(responses):
        for name in wanted:
            if name in ALL_FEATURE_SCORES:
                scores[name][places] = ALL_FEATURE_SCORES[name](features, labels).numpy()
            else:
                scores[name][places] = ALL_PROBABILITY_SCORES[name](probabilities, labels).numpy()
    return scores


def score_sets(
    networks: Sequence[tuple[nn.Module, int]],
    sets: Sequence[LabelledImages],
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Compute transferability scores of N networks on S sets of images.

    Args:
        networks: the N networks, each with the number of its source classes.
        sets: the S sets of labelled images.
        names: names of the scores to compute; None for all there are.
        progress: function that is told how many sets are done, and how many there are.

    Returns:
        (S, N) float64 scores, by name of the score.
    """
    images = [torch.from_numpy(labelled.images) for labelled in sets]
    responses = [respond_to_sets(network, images, classes) for network, classes in networks]
    rows = []
    for number, labelled in enumerate(sets):
        answers = [own[number] for own in responses]
        rows.append(score_responses(answers, torch.from_numpy(labelled.labels), names))
        progress(number + 1, len(sets))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def zoo_networks(zoo: ModelZoo) -> list[tuple[nn.Module, int]]:
    """Build all networks of a zoo, each with the number of its source classes."""
    return [(entry.load_model(), len(entry.classes)) for entry in zoo]


def main(arguments: list[str] | None = None) -> None:
    """Describe the zoo; the command line says where to write."""
    from beautilog import logger

    parser = argparse.ArgumentParser(description="Compute what is known of each network without fine-tuning it.")
    parser.add_argument("--out", type=Path, default=DESCRIPTIONS_PATH, help="the file to write")
    options = parser.parse_args(arguments)

    def report(done: int, total: int) -> None:
        if done % 16 == 0 or done == total:
            logger.info(f"{done} of {total} sets")

    try:
        zoo, domains = load_zoo(), load_domains()
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    networks, probes, tasks = zoo_networks(zoo), probe_sets(domains), plan_benchmark(domains)
    logger.info("responses to probe sets")
    probe_scores = score_sets(networks, [probe.images for probe in probes], PROBE_SCORES, report)
    logger.info("responses to the benchmark's tasks")
    task_scores = score_sets(networks, [task.train for task in tasks], None, report)
    names = {
        "models": tuple(entry.name for entry in zoo),
        "probes": tuple(probe.name for probe in probes),
        "tasks": tuple(task.name for task in tasks),
        "zoo_digest": zoo.digest,
    }
    save_descriptions(ZooDescriptions(**names, probe_scores=probe_scores, task_scores=task_scores), options.out)
    logger.info(f"wrote {options.out}")
