"""What a ranker is compared with, on the same tasks and models; and the ceiling that chance sets."""

import numpy as np

from data.benchmark_results import seed_noise
from data.ranking_evidence import Evidence
from data.ranking_world import Fold, RankingWorld, by_row
from evaluation.ranking.ranking_metrics import weighted_kendall

_SIMULATIONS = 50


def baseline_scores(world: RankingWorld, fold: Fold, task: int) -> dict[str, np.ndarray]:
    """Score a fold's test models for one task by everything that needs no ranker.

    Args:
        world: the benchmark.
        fold: tasks, models and probe sets that may be seen.
        task: index of a test task.

    Returns:
        By name of the baseline, (n,) scores of `fold.test_models`; those without a meaning in the fold are left out: a
        model that was never measured has no static rank, a family that was never measured no mean.
    """
    models, known = list(fold.test_models), list(fold.train_models)
    train = [index for index in fold.train_tasks if index != task]
    scores = {"random": np.random.default_rng([task, *models[:1]]).normal(size=len(models))}
    performance = np.full(world.truth.shape, np.nan)
    performance[:, known] = by_row(world.truth[:, known])
    if not fold.cold:
        scores["static mean"] = performance[train].mean(0)[models]
        evidence = Evidence(world, fold)
        here = evidence.place(world.encoded[task])
        distances = [((evidence.place(world.encoded[other]) - here) ** 2).mean() for other in train]
        scores["nearest dataset"] = performance[train[int(np.argmin(distances))]][models]
    elif fold.unseen == "model":
        families = np.array(world.families)
        kin = [[m for m in known if families[m] == families[model]] for model in models]
        scores["static mean of the family"] = np.array([performance[np.ix_(train, own)].mean() for own in kin])
    scores["parameters"] = world.parameters[models]
    scores["source accuracy"] = world.source_accuracy[models]
    return scores | {name: values[task, models] for name, values in world.task_scores.items()}


def noise_ceiling(world: RankingWorld, fold: Fold, task: int, seed: int = 0) -> float:
    """Estimate the weighted Kendall of a ranker that knows how good every model really is.

    The measured accuracy is a mean over few seeds. What is real is drawn from what the measurement leaves possible
    (normal prior and noise), and compared with the measurement.

    Args:
        world: the benchmark.
        fold: fold with the test models that are ranked.
        task: index of a test task.
        seed: seed of the draws, together with the task's index.
    """
    models = list(fold.test_models)
    measured = world.truth[task, models]
    noise = seed_noise(world.seeds[[task]])[0] ** 2 / world.seeds.shape[2]  # variance of the mean over seeds
    real = max(measured.var(ddof=1) - noise, 1e-12)
    share = real / (real + noise)
    centre = measured.mean() + share * (measured - measured.mean())
    draw = np.random.default_rng([seed, task])
    possible = centre + draw.normal(0, np.sqrt(share * noise), (_SIMULATIONS, len(models)))
    return float(np.mean([weighted_kendall(truth, measured) for truth in possible]))
