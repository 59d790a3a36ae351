"""Transferability scores, which need no training: how well the features of each model fit the labels of a task."""

import math
from collections.abc import Callable, Sequence

import torch

_LOG_ME_ITERATIONS = 100
_LOG_ME_PRECISION = 1e-9
_LOG_ME_BOUND = 1e8  # alpha/beta stays within this factor of the largest squared singular value
_KEPT_VARIANCE = 0.8
_MOST_DIMENSIONS = 64
_ROWS_PER_COMPONENT = 3
_MIXTURE_ITERATIONS = 20
_MIXTURE_FLOOR = 0.1
_LARGE = 512  # rows and columns from which on singular values are taken from a product
_PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 9))


def log_me(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """LogME: the highest evidence of Bayesian linear regression from features to labels.

    For each class, y is 1 on its rows and 0 on others; with weights w ~ N(0, 1/alpha) and y ~ N(Fw, 1/beta), the log
    evidence

        n/2 log beta + d/2 log alpha - n/2 log 2 pi - beta/2 |y - Fm|^2 - alpha/2 |m|^2 - 1/2 log |A|,

    A = alpha I + beta F'F, m = beta A^-1 F'y, is maximised over alpha and beta (You et al., "LogME: Practical
    Assessment of Pre-trained Models for Transfer Learning", ICML 2021). With the singular values of F it depends on
    alpha/beta alone, since the best beta is then known. The best alpha/beta of a coarse grid starts the fixed-point
    iteration alpha = gamma / |m|^2, beta = (n - gamma) / |y - Fm|^2, which stops for each class where alpha/beta
    changes by less than 1e-9 of itself, or after 100 rounds. alpha/beta stays within 1e-8 to 1e8 times the largest
    squared singular value, so that labels which features reproduce exactly, or know nothing of, have a finite score.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows.
        labels: (n,) int, class of each row.

    Returns:
        (M,) float64: log evidence divided by n, mean over classes. Does not depend on the scale of features.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    features, targets, _ = _check_features(features, labels)
    rows = len(targets)
    left, spectrum = _singular(features)
    energies = (left.mT @ targets).square().mT  # (M, C, r): of each target, along each left singular vector
    outside = (targets.sum(0) - energies.sum(-1)).clamp_min(0)  # (M, C): what no weights can reach
    spectrum = (spectrum / _or_one(spectrum[:, :1]))[:, None]  # (M, 1, r)
    return _highest_evidence(energies, outside, spectrum, rows).mean(-1) / rows


def h_score(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """H-score with a shrunk covariance: how much of the features' spread lies between classes.

    (1 - a) tr(S_a^-1 B), where B is the covariance of each row's class mean and S_a = (1 - a) S + a tr(S)/d I the
    covariance of features, shrunk as by Ledoit & Wolf (2004, "A well-conditioned estimator for large-dimensional
    covariance matrices"); Ibrahim, Ponomareva & Mazumder 2022, "Newer is not always better: Rethinking transferability
    metrics, their peculiarities, stability and performance". All covariances divide by n.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows.
        labels: (n,) int, class of each row.

    Returns:
        (M,) float64, 0 to the number of classes less one. 0 where all rows of a model are equal.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    features, targets, _ = _check_features(features, labels)
    rows, width = len(targets), features.shape[-1]
    centred = _centred(features)
    left, spectrum = _singular(centred)
    variances = spectrum / rows  # (M, r): eigenvalues of S; those past r are 0
    mean = variances.sum(-1) / width  # tr(S)/d, (M,)
    spread = (variances.square().sum(-1) / width - mean.square()).clamp_min(0)  # |S - mean I|^2 / d
    norms = centred.square().sum(-1)  # (M, n)
    noise = (norms.square().mean(-1) - variances.square().sum(-1)) / (width * rows)
    # A covariance that is spherical already needs no shrinkage; its spread is rounding, not a number to divide by.
    spherical = spread <= 1e-12 * mean.square()
    shrinkage = torch.where(spherical, 0.0, (noise / spread).clamp(0, 1))[:, None]  # (M, 1)
    shrunk = (1 - shrinkage) * variances + shrinkage * mean[:, None]
    inverse = torch.where(shrunk > 1e-12 * _or_one(variances[:, :1]), 1 / shrunk, 0.0)
    energies = ((left.mT @ targets).square() / targets.sum(0)).sum(-1)  # (M, r): B along singular vectors, less scale
    return ((1 - shrinkage) * inverse * variances * energies).sum(-1)


def leep(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """LEEP: log-likelihood of the labels where each source class votes with its share of the target classes.

    mean_i log sum_z P(y_i | z) p_z(x_i), with P(y | z) from the mean of p_z over rows of label y (Nguyen et al. 2020,
    "LEEP: A New Measure to Evaluate Transferability of Learned Representations").

    Args:
        probabilities: (M, n, Z) float, over source classes of M models; each row sums to 1. Models with fewer source
            classes have zeros at the end.
        labels: (n,) int, class of each row.

    Returns:
        (M,) float64, at most 0.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    return _leep(*_check_probabilities(probabilities, labels))


def nce(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative conditional entropy of the labels, given the source class that is most probable for each row.

    sum_yz P(y, z) log P(y | z) (Tran et al. 2019, "Transferability and Hardness of Supervised Classification Tasks").

    Args:
        probabilities: (M, n, Z) float, over source classes of M models; each row sums to 1. Models with fewer source
            classes have zeros at the end.
        labels: (n,) int, class of each row.

    Returns:
        (M,) float64 in nats, at most 0.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    probabilities, targets = _check_probabilities(probabilities, labels)
    hard = torch.zeros_like(probabilities).scatter_(-1, probabilities.argmax(-1, keepdim=True), 1.0)
    joint = targets.mT @ hard / len(targets)  # (M, C, Z)
    return torch.xlogy(joint, joint).sum((1, 2)) - torch.xlogy(joint.sum(1), joint.sum(1)).sum(-1)


def n_leep(features: torch.Tensor, labels: torch.Tensor, components_per_class: int = 5) -> torch.Tensor:
    """N-LEEP: LEEP on the clusters of the features instead of source classes.

    Principal components that hold 80 % of the variance, 64 at most; a Gaussian mixture over them; LEEP on its
    responsibilities (Li et al. 2021, "Ranking Neural Checkpoints"). Made for few rows: a component for each three rows
    at most (but one for each class at least), diagonal covariances, to which a tenth of the mean variance of the
    components is added, 20 rounds of expectation maximisation from the rows that lie farthest apart. Nothing is random.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows.
        labels: (n,) int, class of each row.
        components_per_class: mixture components for each class, where there are rows enough.

    Returns:
        (M,) float64, at most 0.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    features, targets, _ = _check_features(features, labels)
    if components_per_class < 1:
        raise ValueError(f"components_per_class is {components_per_class}; it must be 1 or more.")
    rows, classes = targets.shape
    count = min(components_per_class * classes, max(classes, rows // _ROWS_PER_COMPONENT))
    return _leep(_responsibilities(_principal_components(features), count), targets)


def nearest_centroid(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Leave-one-out accuracy of the nearest class centroid, on standardised features.

    A row is taken out of its own class's centroid. Of k classes equally near, the right one counts 1/k.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows. Each column is standardised, constant ones
            are 0.
        labels: (n,) int, class of each row. The only row of a class counts as wrong.

    Returns:
        (M,) float64, 0 to 1.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    features, targets, classes = _check_features(features, labels)
    distances, _ = _centroid_distances(_standardised(features), targets)
    return _accuracy(-distances / features.shape[-1], classes)


def centroid_margin(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Smooth form of `nearest_centroid`: mean log-probability of the right class under a softmax over centroids.

    Logits are negative squared distances, divided by the within-class variance (the summed squares of rows about their
    class centroids over n - C, all columns together). A row is taken out of its own class's centroid.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows. Each column is standardised, constant ones
            are 0.
        labels: (n,) int, class of each row. The only row of a class counts as a guess among all classes.

    Returns:
        (M,) float64 in nats, at most 0.

    Raises:
        ValueError: a shape, number or label is not as above, or there is only one class.
    """
    features, targets, classes = _check_features(features, labels)
    rows, count = targets.shape
    distances, within = _centroid_distances(_standardised(features), targets)
    # Over all columns together: a variance a column would take d columns for d independent witnesses.
    variance = (within / max(rows - count, 1)).clamp_min(1e-6 * features.shape[-1])
    logs = (-distances / variance[:, None, None]).log_softmax(-1)
    own = logs.gather(-1, classes.expand(len(features), -1)[..., None])[..., 0]  # (M, n)
    return own.masked_fill(targets.sum(0)[classes] == 1, -math.log(count)).mean(-1)


def linear_probe(features: torch.Tensor, labels: torch.Tensor, penalties: Sequence[float] = _PENALTIES) -> torch.Tensor:
    """Leave-one-out accuracy of ridge regression on one-hot labels.

    With an intercept, which is not penalised. The predictions without row i come from the hat matrix H of all rows:
    y_i - (y_i - yhat_i) / (1 - H_ii) (Allen 1974, PRESS). Each model takes the penalty with the smallest squared error
    of these. Of k classes with equal predictions, the right one counts 1/k.

    Args:
        features: (M, n, d) float, features of M models on the task's n rows.
        labels: (n,) int, class of each row.
        penalties: penalties to choose from, as multiples of the mean squared norm of centred rows.

    Returns:
        (M,) float64, 0 to 1. Features that know nothing are below chance: a row makes its own class rarer in the rest.

    Raises:
        ValueError: a shape, number or label is not as above, a penalty is not positive, or there is only one class.
    """
    features, targets, classes = _check_features(features, labels)
    if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
        raise ValueError(f"penalties are {penalties}; there must be one or more, all positive.")
    rows = len(targets)
    left, spectrum = _singular(_centred(features))
    scale = _or_one(spectrum.sum(-1, keepdim=True) / rows)  # (M, 1)
    inside = left.mT @ targets  # (M, r, C)
    best = torch.full((len(features),), math.inf, dtype=torch.float64, device=features.device)
    predictions = torch.zeros(len(features), *targets.shape, dtype=torch.float64, device=features.device)
    for penalty in penalties:
        fitted = spectrum / (spectrum + penalty * scale)  # (M, r)
        errors = targets - targets.mean(0) - left @ (fitted[..., None] * inside)  # (M, n, C)
        leverage = 1 / rows + (left.square() @ fitted[..., None])  # (M, n, 1)
        errors = errors / (1 - leverage)
        squared = errors.square().sum((1, 2))
        better = squared < best
        predictions = torch.where(better[:, None, None], targets - errors, predictions)
        best = torch.where(better, squared, best)
    return _accuracy(predictions, classes)


ALL_FEATURE_SCORES: dict[str, Callable[..., torch.Tensor]] = {
    "log_me": log_me,
    "h_score": h_score,
    "n_leep": n_leep,
    "nearest_centroid": nearest_centroid,
    "centroid_margin": centroid_margin,
    "linear_probe": linear_probe,
}
ALL_PROBABILITY_SCORES: dict[str, Callable[..., torch.Tensor]] = {"leep": leep, "nce": nce}


def _highest_evidence(energies: torch.Tensor, outside: torch.Tensor, spectrum: torch.Tensor, rows: int) -> torch.Tensor:
    # Of targets with squared parts `energies` (M, C, r) along singular vectors and `outside` (M, C) in no direction of
    # theirs, for squared singular values `spectrum` (M, 1, r) -> (M, C). All is written in ratio = alpha/beta.
    def log_evidence(ratio: torch.Tensor) -> torch.Tensor:
        kept = ratio[..., None] / (ratio[..., None] + spectrum)  # (M, C, r): fraction of y that is not fitted
        misfit = (energies * kept).sum(-1) + outside  # |y - Fm|^2 + ratio |m|^2, which is n / beta at the best beta
        return rows / 2 * (math.log(rows / (2 * math.pi)) - misfit.log() - 1) + kept.log().sum(-1) / 2

    ratio, best = torch.ones_like(outside), torch.full_like(outside, -math.inf)
    for exponent in range(-16, 17):  # the evidence may have several maxima, and the iteration finds one nearby
        point = torch.full_like(outside, _LOG_ME_BOUND ** (exponent / 16))
        evidence = log_evidence(point)
        ratio, best = torch.where(evidence > best, point, ratio), torch.maximum(evidence, best)
    moving = torch.ones_like(ratio, dtype=torch.bool)
    for _ in range(_LOG_ME_ITERATIONS):
        inverse = 1 / (ratio[..., None] + spectrum)  # (M, C, r)
        gamma = (spectrum * inverse).sum(-1)
        weights = (energies * spectrum * inverse.square()).sum(-1)  # |m|^2
        residual = (energies * (ratio[..., None] * inverse).square()).sum(-1) + outside  # |y - Fm|^2
        new = gamma * residual / ((rows - gamma) * weights).clamp_min(1e-300)
        new = new.clamp(1 / _LOG_ME_BOUND, _LOG_ME_BOUND)
        # Each class of each model stops by itself: its score must not depend on who else is in the batch.
        changed = (new - ratio).abs() > _LOG_ME_PRECISION * ratio
        ratio = torch.where(moving, new, ratio)
        moving &= changed
        if not moving.any():  # on an accelerator the host waits here
            break
    return torch.maximum(log_evidence(ratio), best)


def _leep(weights: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    joint = targets.mT @ weights  # (M, C, Z)
    conditional = joint / joint.sum(1, keepdim=True).clamp_min(1e-300)  # a class that no row has votes for none
    return ((weights @ conditional.mT) * targets).sum(-1).log().mean(-1)


def _principal_components(features: torch.Tensor) -> torch.Tensor:
    # (M, n, D), zero past a model's own number of components: zeros are alike in all rows, so they tell none apart.
    left, spectrum = _singular(_centred(features))
    before = spectrum.cumsum(-1) - spectrum
    kept = before < _KEPT_VARIANCE * spectrum.sum(-1, keepdim=True) * (1 - 1e-12)  # (M, r)
    kept[:, _MOST_DIMENSIONS:] = False
    width = max(1, int(kept.sum(-1).max()))  # on an accelerator the host waits here
    return (left * (spectrum.sqrt() * kept)[:, None])[..., :width]


def _responsibilities(points: torch.Tensor, count: int) -> torch.Tensor:
    # Of `count` Gaussians with diagonal covariances for rows of points (M, n, D) -> (M, n, count).
    squares = points.square()
    used = (squares.sum(1) > 0).sum(-1)
    floor = _MIXTURE_FLOOR * squares.mean(1).sum(-1) / used.clamp_min(1)
    floor = _or_one(floor)[:, None, None]
    weights = _nearest_of_farthest(points, count)
    for _ in range(_MIXTURE_ITERATIONS):
        mass = weights.sum(1)  # (M, K)
        dead = mass < 1e-10
        scale = mass.masked_fill(dead, 1.0)[..., None]
        means = weights.mT @ points / scale  # (M, K, D)
        variances = (weights.mT @ squares / scale - means.square()).clamp_min(0) + floor
        quadratic = squares @ (1 / variances).mT - 2 * points @ (means / variances).mT  # (M, n, K)
        constant = (means.square() / variances + variances.log()).sum(-1)
        prior = mass.masked_fill(dead, 1.0).log().masked_fill(dead, -math.inf)
        weights = (prior[:, None] - (quadratic + constant[:, None]) / 2).softmax(-1)
    return weights


def _nearest_of_farthest(points: torch.Tensor, count: int) -> torch.Tensor:
    # Each row's nearest of `count` rows, one-hot (M, n, count). The first is farthest from the mean, each next one
    # farthest from those before it; where all rows are taken, the rest stays empty.
    distances = points.square().sum(-1)  # (M, n): the mean is 0
    smallest = 1e-12 * distances.amax(-1, keepdim=True)
    nearest = torch.zeros_like(distances, dtype=torch.long)
    for number in range(count):
        farthest, row = distances.max(-1, keepdim=True)  # (M, 1)
        centre = points.gather(1, row[..., None].expand(-1, -1, points.shape[-1]))  # (M, 1, D)
        new = (points - centre).square().sum(-1)
        if number:
            closer = (new < distances) & (farthest > smallest)
            nearest = torch.where(closer, number, nearest)
            distances = torch.where(closer, new, distances)
        else:
            distances = new
    return torch.nn.functional.one_hot(nearest, count).to(points.dtype)


def _centroid_distances(points: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Squared, leave-one-out (M, n, C), infinite to the class that is left empty; and within-class squares (M,).
    sizes = targets.sum(0)  # (C,)
    centroids = targets.mT @ points / sizes[:, None]  # (M, C, d)
    distances = points.square().sum(-1, keepdim=True) + centroids.square().sum(-1)[:, None]
    distances = (distances - 2 * points @ centroids.mT).clamp_min(0)  # (M, n, C)
    within = (distances * targets).sum((1, 2))
    # Without its row x, a centroid c of m rows is (m c - x) / (m - 1), and x is m / (m - 1) times as far from it.
    left_out = torch.where(sizes > 1, sizes / (sizes - 1), 1.0).square()
    distances = torch.where(targets > 0, distances * left_out, distances)
    return distances.masked_fill((targets > 0) & (sizes == 1), math.inf), within


def _accuracy(scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    # Fraction of rows whose highest score (M, n, C) is of the right class; ties share, lest the order of classes count.
    top = scores >= scores.amax(-1, keepdim=True) - 1e-9
    right = top.gather(-1, classes.expand(len(scores), -1)[..., None])[..., 0]  # (M, n)
    return (right.to(torch.float64) / top.sum(-1)).mean(-1)


def _singular(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Left singular vectors (M, n, r) and squared singular values (M, r), the largest first.
    rows, width = features.shape[-2:]
    if min(rows, width) < _LARGE:
        left, values, _ = torch.linalg.svd(features, full_matrices=False)
        return left, values.square()
    # Eigenvalues of the smaller product take a tenth of the time. They are exact to 1e-13 of the largest; those below
    # 1e-12 of it, which are rounding, count as 0.
    if rows <= width:
        spectrum, left = torch.linalg.eigh(features @ features.mT)
        return left.flip(-1), _without_rounding(spectrum.flip(-1))
    spectrum, right = torch.linalg.eigh(features.mT @ features)
    spectrum = _without_rounding(spectrum.flip(-1))
    return features @ right.flip(-1) * torch.where(spectrum > 0, spectrum.rsqrt(), 0.0)[:, None], spectrum


def _without_rounding(spectrum: torch.Tensor) -> torch.Tensor:
    return torch.where(spectrum > 1e-12 * spectrum[..., :1], spectrum, 0.0)


def _centred(features: torch.Tensor) -> torch.Tensor:
    centred = features - features.mean(1, keepdim=True)
    # A constant column is exactly 0, not the rounding of its mean.
    rounding = 1e-12 * features.abs().amax(1, keepdim=True)
    return torch.where(centred.abs().amax(1, keepdim=True) > rounding, centred, 0.0)


def _standardised(features: torch.Tensor) -> torch.Tensor:
    centred = _centred(features)
    return centred / _or_one(centred.square().mean(1, keepdim=True).sqrt())


def _or_one(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values > 0, values, 1.0)


def _check_features(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # -> features float64, one-hot targets (n, C) float64, classes (n,) of 0..C-1.
    targets, classes = _check(features, labels, "features", "d columns")
    return features.detach().to(torch.float64), targets, classes


def _check_probabilities(probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    targets, _ = _check(probabilities, labels, "probabilities", "Z source classes")
    probabilities = probabilities.detach().to(torch.float64)
    sums = probabilities.sum(-1)
    if (probabilities < 0).any() or ((sums - 1).abs() > 1e-3).any():
        raise ValueError(
            f"probabilities must be 0 or more and each row must sum to 1, but the smallest is "
            f"{probabilities.min():.4g} and rows sum to {sums.min():.4g} to {sums.max():.4g}; apply softmax to logits."
        )
    return probabilities, targets


def _check(values: torch.Tensor, labels: torch.Tensor, name: str, columns: str) -> tuple[torch.Tensor, torch.Tensor]:
    if values.ndim != 3 or not values.is_floating_point() or 0 in values.shape:
        raise ValueError(
            f"{name} are {values.dtype} of shape {tuple(values.shape)}; they must be floats of shape "
            f"(models, n rows, {columns}), none of them 0."
        )
    if labels.shape != values.shape[1:2] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; they must be integers of shape "
            f"({values.shape[1]},), one for each row of the {name}."
        )
    if not values.isfinite().all():
        models = (~values.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"{name} must be finite, but those of models {models} are not; leave these models out.")
    if labels.min() < 0:
        raise ValueError(f"labels must be 0 or more, but {int(labels.min())} is among them.")
    # Renumbered: a class without rows has nothing to score.
    present, classes = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"all {len(labels)} labels are {int(present[0])}; at least two classes are needed.")
    return torch.nn.functional.one_hot(classes, len(present)).to(torch.float64), classes
