"""The answer: models in their order, what is expected of each, which are level, what each costs, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.images.image_dataset import ImageDataset
from evaluation.recommendation.assessment import Assessment
from evaluation.recommendation.feature_scores import SCORES
from evaluation.recommendation.level_groups import Standing, accuracy_draws, standings
from evaluation.recommendation.splits import Splits

PROBE, FINE_TUNED = "linear probe", "fine-tuning"
"""What an expected accuracy may be the accuracy of."""
_SCORE_NAMES = {"log_me": "LogME", "h_score": "H-score", "n_leep": "N-LEEP", "leep": "LEEP", "centroid": "centroid"}


@dataclass(frozen=True)
class RankedModel:
    """A model in its place.

    Attributes:
        rank: 1 for the first.
        assessment: what is known of it.
        standing: what is expected of it, its group, its chance to be the best.
        probe: the same for the accuracy of the linear probe alone.
        why: what speaks for it or against it, in one line.
    """

    rank: int
    assessment: Assessment
    standing: Standing
    probe: Standing
    why: str

    @property
    def name(self) -> str:
        """Name by which the zoo calls it."""
        return self.assessment.entry.name


@dataclass(frozen=True)
class Ranking:
    """Models, the best first.

    Attributes:
        models: the models.
        accuracy_of: what the expected accuracies are those of, `PROBE` or `FINE_TUNED`.
        scored: number of images that the probes were scored on.
        guess: accuracy of always naming the commonest class.
        learnt_from: what the expectation after fine-tuning was learnt from; "" where it is the probe's alone.
    """

    models: tuple[RankedModel, ...]
    accuracy_of: str
    scored: int
    guess: float
    learnt_from: str = ""

    @property
    def level(self) -> int:
        """How many models are level with the first, itself counted."""
        return sum(model.standing.group == 1 for model in self.models)


@dataclass(frozen=True)
class Expectation:
    """What measured results add to the probes.

    Attributes:
        draws: (B, M) draws of each model's accuracy after fine-tuning.
        learnt_from: from what, as a sentence.
        remarks: for each model what the results say of it; "" where they say nothing.
        is_level_known: whether the draws are accuracies after fine-tuning; else only their differences are.
    """

    draws: np.ndarray = field(repr=False)
    learnt_from: str
    remarks: tuple[str, ...]
    is_level_known: bool


def probe_draws(assessments: Sequence[Assessment], dataset: ImageDataset, splits: Splits, seed: int = 0) -> np.ndarray:
    """Draw the accuracies of the models' linear probes, (B, M), paired over images."""
    scored = splits.scored
    hits = np.stack([each.probe.repeats[:, scored] for each in assessments])
    return accuracy_draws(hits, dataset.groups[scored], seed)


def rank_models(
    assessments: Sequence[Assessment],
    dataset: ImageDataset,
    splits: Splits,
    draws: np.ndarray,
    expectation: Expectation | None = None,
) -> Ranking:
    """Put models in their order.

    Args:
        assessments: the models that could be assessed, at least one.
        dataset: the images.
        splits: which images the probes were scored on.
        draws: (B, M), of `probe_draws`.
        expectation: what measured results add; None where there are none.
    """
    scored = splits.scored
    probes = standings(draws)
    final = probes if expectation is None else standings(expectation.draws)
    # Equal accuracies are ordered by how sure the probe was of the right class, then by what the model costs.
    losses = [float(np.nanmean(each.probe.log_losses)) for each in assessments]
    order = sorted(
        range(len(assessments)),
        key=lambda m: (
            -round(final[m].expected, 9),
            losses[m],
            assessments[m].costs.parameters,
            assessments[m].entry.name,
        ),
    )
    groups = np.maximum.accumulate([final[m].group for m in order])
    whys = _reasons(assessments, order, groups, scored, expectation)
    models = []
    for place, m in enumerate(order):
        standing = Standing(final[m].expected, final[m].low, final[m].high, int(groups[place]), final[m].chance)
        models.append(RankedModel(place + 1, assessments[m], standing, probes[m], whys[place]))
    counts = np.bincount(dataset.labels[scored])
    return Ranking(
        tuple(models), FINE_TUNED if expectation is not None and expectation.is_level_known else PROBE,
        int(scored.sum()), float(counts.max() / counts.sum()), "" if expectation is None else expectation.learnt_from,
    )  # fmt: skip


def _reasons(
    assessments: Sequence[Assessment],
    order: Sequence[int],
    groups: np.ndarray,
    scored: np.ndarray,
    expectation: Expectation | None,
) -> list[str]:
    """Say in a line for each model, in the order of the ranking, what speaks for it."""
    hits = [float(each.probe.hits[scored].sum()) for each in assessments]
    count = int(scored.sum())
    first = order[0]
    best_of = {
        name: max(values)
        for name in SCORES
        if (values := [each.scores[name] for each in assessments if math.isfinite(each.scores[name])])
    }
    level = [m for m, group in zip(order, groups, strict=True) if group == groups[0]]
    cheapest = min(level, key=lambda m: assessments[m].costs.gflops or assessments[m].costs.parameters)
    reasons = []
    for place, m in enumerate(order):
        each = assessments[m]
        parts = [f"right on {hits[m]:.0f} of {count:,} images"]
        if place and (behind := round(hits[first] - hits[m])):
            parts[0] += f", {abs(behind):,} {'fewer' if behind > 0 else 'more'} than the first"
        elif not place and len(order) > 1 and (ahead := round(hits[m] - hits[order[1]])):
            parts[0] += f", {abs(ahead):,} {'more' if ahead > 0 else 'fewer'} than the second"
        tops = [_SCORE_NAMES[name] for name, value in best_of.items() if each.scores[name] == value]
        if tops and len(order) > 1:
            parts.append(f"highest {' and '.join(', '.join(tops).rsplit(', ', 1))}")
        if m == cheapest and len(level) > 1:
            parts.append("the cheapest of the level ones")
        if expectation is not None and expectation.remarks[m]:
            parts.append(expectation.remarks[m])
        reasons.append("; ".join(parts))
    return reasons
