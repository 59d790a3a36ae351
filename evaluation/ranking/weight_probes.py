"""How much a description of networks knows: linear probes for accuracy and domain, and reconstruction R2."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

_ALPHAS = np.logspace(-2, 5, 15)
_RESAMPLES = 1000


def probe_networks(
    zoo: Any, features: Sequence[torch.Tensor], train: Sequence[int], test: Sequence[int], prefix: str
) -> dict[str, float]:
    """Fit linear probes on the training networks and score them on the test networks.

    Ridge regression on the features and a column for each family. The penalty is chosen by cross-validation over
    training networks; domains are predicted by regression on their indicator, each domain with equal weight. Every
    checkpoint is a sample; the interval resamples test networks.

    Args:
        zoo: the networks, in the order of `features`.
        features: (C, F) features of each network, a row a checkpoint, the same columns for all networks.
        train: indices of the training networks.
        test: indices of the test networks.
        prefix: prefix of the names in the result.

    Returns:
        `accuracy_r2` and `domain_accuracy`, each with `_low` and `_high` of a 95 % interval.
    """
    families = list(dict.fromkeys(entry.family for entry in zoo))
    groups = np.concatenate([[index] * len(feature) for index, feature in enumerate(features)])
    family = np.array([families.index(entry.family) for entry in zoo])[groups]
    rows = np.concatenate([torch.cat(list(features)).numpy(), np.eye(len(families))[family]], axis=1)
    accuracy = np.concatenate([entry.source_accuracy for entry in zoo])
    names = {name: number for number, name in enumerate(dict.fromkeys(entry.domain for entry in zoo))}
    domain = np.array([names[entry.domain] for entry in zoo])[groups]

    fit, held = np.isin(groups, train), np.isin(groups, test)
    even = np.ones(int(fit.sum()))
    predicted = _ridge(rows[fit], accuracy[fit][:, None], even, groups[fit], rows[held])[:, 0]
    # Equal weights: a domain with many networks in training has few in the test, and would be guessed too often.
    weights = 1.0 / np.bincount(domain[fit], minlength=len(names))[domain[fit]]
    indicator = np.eye(len(names))[domain]
    chosen = _ridge(rows[fit], indicator[fit], weights * len(weights) / weights.sum(), groups[fit], rows[held]).argmax(
        1
    )
    scores = {
        "accuracy_r2": _with_interval(groups[held], accuracy[held], predicted, _r2),
        "domain_accuracy": _with_interval(groups[held], domain[held], chosen, lambda a, b: float((a == b).mean())),
    }
    return {f"{prefix}{name}{end}": round(value, 4) for name, ends in scores.items() for end, value in ends.items()}


def _ridge(
    fit: np.ndarray, targets: np.ndarray, weights: np.ndarray, groups: np.ndarray, held: np.ndarray
) -> np.ndarray:
    from sklearn.linear_model import Ridge  # scikit-learn takes a second to import
    from sklearn.model_selection import GridSearchCV, GroupKFold

    # One scale for all columns: how much each counts belongs to the description that is probed.
    centre = fit.mean(0)
    scale = (fit - centre).std()
    search = GridSearchCV(
        Ridge(), {"alpha": _ALPHAS}, cv=GroupKFold(min(5, len(set(groups)))), scoring="neg_mean_squared_error"
    )
    search.fit((fit - centre) / scale, targets, sample_weight=weights, groups=groups)
    return search.predict((held - centre) / scale).reshape(len(held), -1)


def _r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    spread = ((truth - truth.mean()) ** 2).sum()
    return float(1 - ((truth - predicted) ** 2).sum() / spread) if spread else 0.0


def _with_interval(groups: np.ndarray, truth: np.ndarray, predicted: np.ndarray, score: Any) -> dict[str, float]:
    draw = np.random.default_rng(0)
    networks = np.unique(groups)
    rows_of = {network: np.flatnonzero(groups == network) for network in networks}
    resampled = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rows_of[network] for network in draw.choice(networks, len(networks))])
        resampled.append(score(truth[rows], predicted[rows]))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"": score(truth, predicted), "_low": float(low), "_high": float(high)}


def reconstruction_r2(zoo: Any, scores: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Summarize reconstruction errors.

    Args:
        zoo: networks of the zoo.
        scores: by name of the network: squared error and squared deviation from a constant, each (C,), a number a
            checkpoint.

    Returns:
        R2 over all checkpoints with a 95 % interval over networks, over the last checkpoints, and by family.
    """

    def r2(names: Sequence[str], last: bool = False) -> float:
        pairs = [(e[-1:], d[-1:]) if last else (e, d) for e, d in (scores[name] for name in names)]
        return float(1 - sum(e.sum() for e, _ in pairs) / sum(d.sum() for _, d in pairs))

    names = list(scores)
    draw = np.random.default_rng(0)
    low, high = np.percentile([r2(draw.choice(names, len(names))) for _ in range(_RESAMPLES)], [2.5, 97.5])
    results = {"reconstruction_r2": r2(names), "reconstruction_r2_low": low, "reconstruction_r2_high": high}
    results["reconstruction_r2_last_checkpoint"] = r2(names, last=True)
    for family in dict.fromkeys(entry.family for entry in zoo):
        members = [entry.name for entry in zoo if entry.family == family and entry.name in scores]
        if members:
            results[f"reconstruction_r2_{family}"] = r2(members)
    return {name: round(float(value), 4) for name, value in results.items()}
