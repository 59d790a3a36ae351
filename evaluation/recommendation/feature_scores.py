"""How well a model's features fit the labels, by scores that train nothing: LogME, H-score, N-LEEP, LEEP, centroids."""

import math
from collections.abc import Callable

import numpy as np
import torch

from evaluation.ranking.transferability import h_score, leep, log_me, n_leep, nearest_centroid

_FEATURE_SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "log_me": log_me, "h_score": h_score, "n_leep": n_leep, "centroid": nearest_centroid,
}  # fmt: skip
SCORES = (*_FEATURE_SCORES, "leep")
"""Names of the scores: higher is better in each, and none can be compared with another."""
_MOST_MIXTURES = 256  # components of N-LEEP's mixture
_MOST_IMAGES = 1500  # whose features are scored; the scores hardly move with more, and their time goes with the cube


def feature_scores(features: torch.Tensor, labels: np.ndarray, logits: torch.Tensor | None) -> dict[str, float]:
    """Score one model's features; of many images every k-th of each class, 1,500 in all.

    Args:
        features: (n, d) float, on any device.
        labels: (n,) int, class of each image; at least two.
        logits: (n, K) float, what the model's own head says; None where it has none, which leaves out LEEP.

    Returns:
        Value of each of `SCORES`; NaN where a score can't be computed, which takes nothing from the others.
    """
    order = np.argsort(labels, kind="stable")
    kept = torch.as_tensor(np.sort(order[:: max(1, -(-len(order) // _MOST_IMAGES))]), device=features.device)
    classes = torch.as_tensor(labels, dtype=torch.long, device=features.device)[kept]
    features, logits = features[kept], None if logits is None else logits[kept]
    scores = {name: _value(score, features.double(), classes) for name, score in _FEATURE_SCORES.items()}
    scores["leep"] = math.nan if logits is None else _value(leep, logits.double().softmax(1), classes)
    return scores


def _value(score: Callable[..., torch.Tensor], values: torch.Tensor, classes: torch.Tensor) -> float:
    arguments = {}
    if score is n_leep:  # time and memory go with the number of components
        arguments["components_per_class"] = max(1, min(5, _MOST_MIXTURES // int(classes.max() + 1)))
    try:
        value = float(score(values[None], classes, **arguments)[0])
    except (ValueError, RuntimeError):  # a decomposition that didn't converge
        return math.nan
    return value if math.isfinite(value) else math.nan
