"""Transferability scores against slow forms of the papers' equations, and what must or must not change them."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf

from evaluation.ranking import transferability
from evaluation.ranking.transferability import (
    ALL_FEATURE_SCORES,
    ALL_PROBABILITY_SCORES,
    centroid_margin,
    h_score,
    leep,
    linear_probe,
    log_me,
    n_leep,
    nce,
    nearest_centroid,
)

MODELS = 3
PENALTIES = tuple(np.logspace(-4, 4, 17))
KINDS = [
    "fewer columns", "more columns", "duplicated rows", "few distinct rows", "constant column", "unbalanced",
    "dead units", "one column",
]  # fmt: skip
ROTATION_INVARIANT = ["log_me", "h_score", "n_leep", "linear_probe"]


def problem(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (MODELS, n, d) that know more of the labels (n,) from model to model."""
    draw = np.random.default_rng([seed, KINDS.index(kind)])
    width = {"more columns": 40, "one column": 1}.get(kind, 7)
    labels = np.arange(24) % 4
    if kind == "unbalanced":
        labels = np.repeat([0, 1, 2, 3], [14, 6, 3, 1])
    labels = draw.permutation(labels)
    centres = draw.normal(size=(MODELS, 4, width)) * np.array([0.1, 0.7, 1.5])[:, None, None]
    features = centres[:, labels] + draw.normal(size=(MODELS, len(labels), width)) * draw.uniform(0.3, 2, width) + 0.5
    if kind == "duplicated rows":
        features[:, 12:20] = features[:, :8]
    if kind == "few distinct rows":  # fewer than N-LEEP has components
        features = features[:, np.arange(24) % 5]
    if kind == "constant column":
        features[..., 2] = 0.1
    if kind == "dead units":
        features = np.concatenate([features, features[..., :3] @ draw.normal(size=(3, 4)), 0 * features], axis=-1)
    return features, labels


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(array) for array in arrays)


def probabilities(features: np.ndarray, seed: int = 0) -> np.ndarray:
    logits = features @ np.random.default_rng(seed).normal(size=(features.shape[-1], 5))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def inputs_of(name: str, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    features, labels = problem(kind, seed)
    return (probabilities(features) if name in ALL_PROBABILITY_SCORES else features), labels


ALL_SCORES = {**ALL_FEATURE_SCORES, **ALL_PROBABILITY_SCORES}


def log_evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    n, d = features.shape
    precision = alpha * np.eye(d) + beta * features.T @ features
    mean = beta * np.linalg.solve(precision, features.T @ target)
    return (
        n / 2 * np.log(beta) + d / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
        - beta / 2 * ((target - features @ mean) ** 2).sum() - alpha / 2 * (mean**2).sum()
        - np.linalg.slogdet(precision)[1] / 2
    )  # fmt: skip


def slow_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    total = []
    for number in np.unique(labels):
        target = (labels == number).astype(float)
        found = [
            minimize(
                lambda point, target=target: -log_evidence(features, target, *np.exp(point)),
                start, method="L-BFGS-B", bounds=[(-9, 20), (-9, 20)], options={"ftol": 1e-15, "gtol": 1e-9},
            ).fun
            for start in ([0, 0], [5, 3], [-3, 6], [12, 2])
        ]  # fmt: skip
        total.append(-min(found) / len(target))
    return float(np.mean(total))


def slow_h_score(features: np.ndarray, labels: np.ndarray) -> float:
    covariance, shrinkage = ledoit_wolf(features)
    means = np.array([features[labels == label].mean(0) for label in labels])
    between = np.cov(means.T, bias=True).reshape(covariance.shape)
    return float(np.trace(np.linalg.inv(covariance) @ ((1 - shrinkage) * between)))


def slow_leep(weights: np.ndarray, labels: np.ndarray) -> float:
    n, sources = weights.shape
    joint = np.zeros((labels.max() + 1, sources))
    for row in range(n):
        for source in range(sources):
            joint[labels[row], source] += weights[row, source] / n
    total = 0.0
    for row in range(n):
        votes = [
            joint[labels[row], source] / joint[:, source].sum() * weights[row, source]
            for source in range(sources)
            if joint[:, source].sum() > 0
        ]
        total += np.log(sum(votes)) / n
    return total


def slow_nce(weights: np.ndarray, labels: np.ndarray) -> float:
    hard, n = [int(np.argmax(row)) for row in weights], len(labels)
    total = 0.0
    for label in set(labels.tolist()):
        for source in set(hard):
            both = sum(a == label and b == source for a, b in zip(labels, hard, strict=True))
            if both:
                total += both / n * np.log(both / hard.count(source))
    return total


def slow_n_leep(features: np.ndarray, labels: np.ndarray) -> float:
    centred = features - features.mean(0)
    n, classes = len(labels), len(set(labels.tolist()))
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = values[::-1], vectors[:, ::-1]
    width = next(w for w in range(1, len(values) + 1) if values[:w].sum() >= 0.8 * values.sum() * (1 - 1e-12))
    points = centred @ vectors[:, :width]
    count = min(5 * classes, max(classes, n // 3))

    chosen = [int(np.argmax((points**2).sum(1)))]
    while len(chosen) < count:
        gaps = [min(((point - points[other]) ** 2).sum() for other in chosen) for point in points]
        if max(gaps) < 1e-12 * (points**2).sum(1).max():
            break
        chosen.append(int(np.argmax(gaps)))
    weights = np.zeros((n, count))
    for row, point in enumerate(points):
        weights[row, int(np.argmin([((point - points[other]) ** 2).sum() for other in chosen]))] = 1

    floor = 0.1 * (points**2).mean()
    for _ in range(20):
        logs = np.full((n, count), -np.inf)
        for component in range(count):
            mass = weights[:, component].sum()
            if mass < 1e-10:
                continue
            mean = sum(w * point for w, point in zip(weights[:, component], points, strict=True)) / mass
            variance = sum(w * (point - mean) ** 2 for w, point in zip(weights[:, component], points, strict=True))
            variance = variance / mass + floor
            for row, point in enumerate(points):
                density = -0.5 * (np.log(2 * np.pi * variance) + (point - mean) ** 2 / variance).sum()
                logs[row, component] = np.log(mass / n) + density
        weights = np.exp(logs - logs.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
    return slow_leep(weights, labels)


def standardised(features: np.ndarray) -> np.ndarray:
    constant = np.ptp(features, axis=0) < 1e-9
    return (features - features.mean(0)) / np.where(constant, np.inf, features.std(0))


def slow_centroids(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    points = standardised(features)
    classes = np.unique(labels)
    within = sum(((points[labels == c] - points[labels == c].mean(0)) ** 2).sum() for c in classes)
    right, margin = [], []
    for row, label in enumerate(labels):
        others = np.arange(len(labels)) != row
        if not (labels[others] == label).any():
            right.append(0.0)
            margin.append(-np.log(len(classes)))
            continue
        distances = np.array([((points[row] - points[others & (labels == c)].mean(0)) ** 2).sum() for c in classes])
        own = int(np.flatnonzero(classes == label)[0])
        right.append(float(np.argmin(distances) == own))
        powers = np.exp(-distances / (within / (len(labels) - len(classes))))
        margin.append(np.log(powers[own] / powers.sum()))
    return float(np.mean(right)), float(np.mean(margin))


def slow_linear_probe(features: np.ndarray, labels: np.ndarray, penalties: tuple[float, ...] = PENALTIES) -> float:
    scale = ((features - features.mean(0)) ** 2).sum(1).mean()
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    targets = np.eye(labels.max() + 1)[labels]
    found = []
    for multiple in penalties:
        penalty = np.diag([multiple * scale] * features.shape[1] + [0.0])
        held = np.zeros_like(targets)
        for row in range(len(rows)):
            rest = np.arange(len(rows)) != row
            gram = rows[rest].T @ rows[rest] + penalty
            held[row] = rows[row] @ np.linalg.solve(gram, rows[rest].T @ targets[rest])
        found.append((((held - targets) ** 2).sum(), (held.argmax(1) == labels).mean()))
    return float(min(found)[1])


SLOW = {
    "log_me": slow_log_me,
    "h_score": slow_h_score,
    "n_leep": slow_n_leep,
    "nearest_centroid": lambda features, labels: slow_centroids(features, labels)[0],
    "centroid_margin": lambda features, labels: slow_centroids(features, labels)[1],
    "linear_probe": slow_linear_probe,
    "leep": slow_leep,
    "nce": slow_nce,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SLOW)
def test_each_score_is_what_its_paper_says(name, kind):
    # The fixed point of LogME is approached slowly where the evidence is flat, and an optimiser stops early there too.
    nearly = 1e-6 if name == "log_me" else 1e-9
    for seed in range(1 if name == "log_me" else 3):
        values, labels = inputs_of(name, kind, seed)
        found = ALL_SCORES[name](*tensors(values, labels))
        assert found.shape == (MODELS,) and found.dtype == torch.float64
        assert found.tolist() == pytest.approx([SLOW[name](one, labels) for one in values], rel=1e-6, abs=nearly)


@pytest.mark.parametrize("kind", KINDS)
def test_log_me_is_where_the_published_iteration_ends(kind):
    features, labels = problem(kind, seed=1)
    found = log_me(*tensors(features, labels))[-1].item()
    informed, total = features[-1], []
    for number in range(4):
        target, alpha, beta = (labels == number).astype(float), 1.0, 1.0
        for _ in range(3000):
            inverse = np.linalg.inv(alpha * np.eye(informed.shape[1]) + beta * informed.T @ informed)
            mean = beta * inverse @ informed.T @ target
            gamma = np.trace(beta * inverse @ informed.T @ informed)
            before = alpha, beta
            alpha = min(gamma / (mean**2).sum(), 1e9)
            beta = (len(target) - gamma) / ((target - informed @ mean) ** 2).sum()
            if np.allclose(before, (alpha, beta), rtol=1e-9, atol=0):
                break
        total.append(log_evidence(informed, target, alpha, beta) / len(target))
    assert found >= np.mean(total) - 1e-6
    assert found == pytest.approx(np.mean(total), abs=1e-4)  # it creeps where the best alpha is infinite


@pytest.mark.parametrize("name", ALL_SCORES)
def test_a_batch_of_models_is_one_at_a_time(name):
    for kind in KINDS:
        values, labels = tensors(*inputs_of(name, kind))
        together = ALL_SCORES[name](values, labels)
        alone = torch.cat([ALL_SCORES[name](one[None], labels) for one in values])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ALL_SCORES)
def test_the_order_of_rows_and_the_numbers_of_classes_do_not_count(name):
    draw = np.random.default_rng(3)
    for kind in KINDS:
        values, labels = inputs_of(name, kind)
        order, numbers = draw.permutation(len(labels)), np.array([9, 3, 0, 4])  # 1, 2 and 5 to 8 have no rows
        before = ALL_SCORES[name](*tensors(values, labels))
        after = ALL_SCORES[name](*tensors(values[:, order], numbers[labels[order]]))
        torch.testing.assert_close(before, after, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ROTATION_INVARIANT)
def test_rotating_features_changes_nothing(name):
    for kind in KINDS:
        features, labels = problem(kind)
        rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(features.shape[-1],) * 2))[0]
        before = ALL_SCORES[name](*tensors(features, labels))
        after = ALL_SCORES[name](*tensors(features @ rotation, labels))
        torch.testing.assert_close(before, after, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ALL_FEATURE_SCORES)
def test_the_scale_of_features_does_not_count(name):
    features, labels = tensors(*problem("more columns"))
    before = ALL_SCORES[name](features, labels)
    for scale in (1e-4, 1e4):
        torch.testing.assert_close(ALL_SCORES[name](features * scale, labels), before, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ALL_SCORES)
def test_a_model_that_tells_classes_apart_scores_higher(name):
    for rows in (18, 150):
        draw = np.random.default_rng(rows)
        labels = np.arange(rows) % 6
        noise = draw.normal(size=(rows, 64))
        features = np.stack([noise, noise + 3 * draw.normal(size=(6, 64))[labels]])
        values = features
        if name in ALL_PROBABILITY_SCORES:
            logits = np.stack([draw.normal(size=(rows, 6)), 5 * np.eye(6)[labels]])
            values = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        blind, seeing = ALL_SCORES[name](*tensors(values, labels))
        assert seeing > blind + 0.01


@pytest.mark.parametrize("name", ALL_FEATURE_SCORES)
def test_constant_features_have_a_finite_score_below_those_that_know(name):
    for kind in ("fewer columns", "more columns", "unbalanced"):
        features, labels = problem(kind)
        for constant in (0.0, 0.1, -3e5):
            features[0] = constant
            dumb, _, best = ALL_SCORES[name](*tensors(features, labels)).tolist()
            assert np.isfinite(dumb) and dumb < best


def test_scores_of_constant_features_are_those_of_chance():
    features, labels = torch.full((1, 24, 5), 0.1), torch.arange(24) % 4
    assert h_score(features, labels).item() == 0.0
    assert nearest_centroid(features, labels).item() == 0.25
    assert centroid_margin(features, labels).item() == pytest.approx(-np.log(4))
    assert n_leep(features, labels).item() == pytest.approx(-np.log(4))
    # Without its row, a class is the rarest of four equal ones, and nothing else is known.
    assert linear_probe(features, labels).item() == 0.0


@pytest.mark.parametrize("name", ALL_FEATURE_SCORES)
def test_labels_that_features_reproduce_have_a_finite_score(name):
    labels = torch.arange(24) % 4
    perfect = torch.nn.functional.one_hot(labels).double()[None]
    wide = torch.cat([perfect, torch.zeros(1, 24, 30, dtype=torch.float64)], dim=-1)
    noisy = perfect + 0.5 * torch.randn(1, 24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for features in (perfect, wide):
        score = ALL_SCORES[name](features, labels)
        assert score.isfinite().all() and score >= ALL_SCORES[name](noisy, labels)


@pytest.mark.parametrize("name", ALL_SCORES)
def test_one_row_a_class_is_scored_too(name):
    values, labels = inputs_of(name, "fewer columns")
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(4)]
    found = ALL_SCORES[name](*tensors(values[:, first], labels[first]))
    assert found.isfinite().all()
    if name == "nearest_centroid":
        assert found.tolist() == [0.0] * MODELS
    if name == "centroid_margin":
        assert found.tolist() == pytest.approx([-np.log(4)] * MODELS)


@pytest.mark.parametrize("name", ALL_SCORES)
def test_single_precision_and_gradients_are_left_at_the_door(name):
    values, labels = tensors(*inputs_of(name, "fewer columns"))
    single = values.float().requires_grad_()
    found = ALL_SCORES[name](single, labels.int())
    assert found.dtype == torch.float64 and not found.requires_grad
    torch.testing.assert_close(found, ALL_SCORES[name](values, labels), rtol=1e-4, atol=1e-4)


def test_a_centroid_knows_nothing_of_the_row_it_is_compared_with():
    # Two rows a class: with its row, each centroid is nearest to its own rows; without it, never.
    features = torch.tensor([[[0.0], [4.0], [1.0], [5.0]]])
    assert nearest_centroid(features, torch.tensor([0, 0, 1, 1])).item() == 0.0
    assert nearest_centroid(features, torch.tensor([0, 1, 0, 1])).item() == 1.0


def test_source_classes_without_mass_change_nothing():
    features, labels = problem("fewer columns")
    weights, labels = tensors(probabilities(features), labels)
    padded = torch.cat([weights, torch.zeros(MODELS, 24, 3, dtype=torch.float64)], dim=-1)
    for score in (leep, nce):
        torch.testing.assert_close(score(padded, labels), score(weights, labels))


def test_source_labels_that_are_the_targets_have_no_conditional_entropy():
    labels = torch.arange(12) % 3
    hard = torch.nn.functional.one_hot(labels, 5).double()[None]
    assert nce(hard, labels).item() == pytest.approx(0.0, abs=1e-12)
    assert leep(hard, labels).item() == pytest.approx(0.0, abs=1e-12)
    even = torch.full((1, 12, 5), 0.2)
    assert leep(even, labels).item() == pytest.approx(-np.log(3), abs=1e-6)
    assert nce(even, labels).item() == pytest.approx(-np.log(3))


def test_principal_components_hold_their_share_of_variance():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, 200, 190, dtype=torch.float64, generator=draw)
    features[1] *= torch.logspace(0, -4, 190, dtype=torch.float64)
    reduced = transferability._principal_components(features)
    assert reduced.shape == (2, 200, 64)  # of the first model 64 components hold less than 80 %
    used = int((reduced[1].abs().sum(0) > 0).sum())
    total = (features[1] - features[1].mean(0)).square().sum()
    assert reduced[1].square().sum() >= 0.8 * total > reduced[1, :, : used - 1].square().sum()


def test_n_leep_takes_fewer_components_where_there_are_fewer_rows(monkeypatch):
    counts = []
    mixture = transferability._responsibilities
    monkeypatch.setattr(
        transferability, "_responsibilities", lambda points, count: counts.append(count) or mixture(points, count)
    )
    draw = torch.Generator().manual_seed(0)
    for rows in (8, 18, 60, 150):
        features, labels = torch.randn(1, rows, 5, generator=draw), torch.arange(rows) % 6
        n_leep(features, labels)
        n_leep(features, labels, components_per_class=2)
    assert counts == [6, 6, 6, 6, 20, 12, 30, 12]


def test_the_linear_probe_takes_the_best_of_its_penalties():
    features, labels = problem("more columns")
    found = {}
    for penalties in ((1e-4,), (1e4,), (1e-4, 1e4), (1e4, 1e-4)):
        found[penalties] = linear_probe(*tensors(features, labels), penalties=penalties).tolist()
        assert found[penalties] == pytest.approx([slow_linear_probe(one, labels, penalties) for one in features])
    assert found[1e-4,] != found[1e4,]
    assert found[1e-4, 1e4] == found[1e4, 1e-4]


@pytest.mark.parametrize("name", ALL_SCORES)
def test_inputs_that_cannot_be_scored_are_named(name):
    score, labels = ALL_SCORES[name], torch.arange(6) % 2
    kind = "probabilities" if name in ALL_PROBABILITY_SCORES else "features"
    good = torch.full((2, 6, 4), 0.25)
    with pytest.raises(ValueError, match=rf"{kind} are torch.float32 of shape \(6, 4\); they must be floats of shape"):
        score(good[0], labels)
    with pytest.raises(ValueError, match=rf"{kind} are torch.int64 of shape \(2, 6, 4\)"):
        score(good.long(), labels)
    with pytest.raises(ValueError, match=rf"{kind} are torch.float32 of shape \(2, 6, 0\).*none of them 0"):
        score(good[..., :0], labels)
    with pytest.raises(ValueError, match=r"labels are torch.int64 of shape \(5,\); .* \(6,\), one for each row"):
        score(good, labels[:5])
    with pytest.raises(ValueError, match=r"labels are torch.float32 of shape \(6,\); they must be integers"):
        score(good, labels.float())
    with pytest.raises(ValueError, match=r"labels must be 0 or more, but -100 is among them"):
        score(good, labels - 100 * (labels == 0))
    with pytest.raises(ValueError, match=r"all 6 labels are 3; at least two classes are needed"):
        score(good, torch.full((6,), 3))
    bad = good.clone()
    bad[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=rf"{kind} must be finite, but those of models \[1\] are not"):
        score(bad, labels)


def test_options_and_probabilities_out_of_range_are_named():
    labels, features = torch.arange(6) % 2, torch.randn(1, 6, 3)
    with pytest.raises(ValueError, match=r"components_per_class is 0; it must be 1 or more"):
        n_leep(features, labels, components_per_class=0)
    for penalties in ([], [1.0, 0.0], [float("inf")]):
        with pytest.raises(ValueError, match=r"penalties are .*; there must be one or more, all positive"):
            linear_probe(features, labels, penalties=penalties)
    for score in (leep, nce):
        with pytest.raises(ValueError, match=r"rows sum to 3 to 3; apply softmax to logits"):
            score(torch.ones(1, 6, 3), labels)
        with pytest.raises(ValueError, match=r"the smallest is -1 and rows sum to 1 to 1"):
            score(torch.tensor([2.0, -1.0]).expand(1, 6, 2), labels)
