"""A linear probe: a linear classifier on a model's frozen features, scored on images that it was not trained on."""

from dataclasses import dataclass, field

import numpy as np
import torch

from evaluation.recommendation.splits import Splits

_PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Strengths to choose from, the strongest first; rows of features have a norm of 1 in the mean."""
_WORSE = 1  # strengths that are worse than the best, before no weaker one is tried
_KEPT_VARIANCE = 0.9995
_MOST_COMPONENTS = 1024
_ITERATIONS = 40
_ENOUGH = 3e-4  # relative change of the loss that ends the fit
_HISTORY = 8
_BACKTRACKS = 12


@dataclass(frozen=True)
class ProbeResult:
    """How a probe did on images that it was not trained on.

    Attributes:
        hits: (n,) float64, share of the splits in which the image was classified right; NaN where it was never scored.
        log_losses: (n,) float64 in nats, mean over the splits; NaN where it was never scored.
        repeats: (R, n) float64, hits in each repeat of the cross-validation; NaN where an image was not scored in it.
        predictions: (n,) int64, the class that it was given; -1 where it was never scored.
        confidence: (n,) float64, the probability of that class; NaN where it was never scored.
        penalty: median strength of the penalty that was chosen.
    """

    hits: np.ndarray = field(repr=False)
    log_losses: np.ndarray = field(repr=False)
    repeats: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)
    penalty: float

    @property
    def accuracy(self) -> float:
        """Share of the scored images that were classified right."""
        return float(np.nanmean(self.hits))


def principal_components(features: torch.Tensor, most: int = _MOST_COMPONENTS) -> torch.Tensor:
    """Turn features so that columns are uncorrelated, and leave out those that hold next to nothing.

    Args:
        features: (n, d) float.
        most: number of columns to keep at most.

    Returns:
        (n, r) float32, centred, the column of the largest variance first; rows have a norm of 1 in the mean.

    Raises:
        ValueError: a feature is not finite, or all rows are equal.
    """
    if not bool(features.isfinite().all()):  # on an accelerator the host waits here
        raise ValueError("features are not finite")
    centred = features.double() - features.double().mean(0)
    scale = centred.square().sum(1).mean().sqrt()
    largest = features.abs().max().double()
    if not float(scale) > 1e-7 * float(largest):
        raise ValueError("features are the same for all images")
    centred = centred / scale
    rows, width = centred.shape
    # Of the smaller of the two products; an eigenvalue decomposition takes a tenth of the time of singular values.
    if rows < width:
        values, left = torch.linalg.eigh(centred @ centred.mT)
        coordinates = left * values.clamp_min(0).sqrt()
    else:
        values, right = torch.linalg.eigh(centred.mT @ centred)
        coordinates = centred @ right
    values, coordinates = values.flip(0).clamp_min(0), coordinates.flip(1)
    before = values.cumsum(0) - values
    kept = int((before < _KEPT_VARIANCE * values.sum()).sum())
    return coordinates[:, : max(1, min(kept, most))].float()


def linear_probe(features: torch.Tensor, labels: np.ndarray, splits: Splits, classes: int) -> ProbeResult:
    """Fit multinomial logistic regressions on the training images of each split and score them on its test images.

    The penalty on squared weights that a split gets is the one with the smallest log-loss on the test images of the
    *other* splits, so that no image has a say in the strength that it is scored with.

    Args:
        features: (n, d) float, on any device.
        labels: (n,) int, class of each image.
        splits: which images to train and to score on.
        classes: number of classes.

    Raises:
        ValueError: a feature is not finite, or all rows are equal.
    """
    device = features.device
    points = principal_components(features)
    targets = torch.as_tensor(labels, dtype=torch.long, device=device)
    train = torch.as_tensor(splits.train, device=device).float()
    problem = _Problem(points, targets, train / train.sum(1, keepdim=True).clamp_min(1), classes)
    weights = torch.zeros(len(train), points.shape[1] + 1, classes, device=device)
    tried: list[tuple[np.ndarray, ...]] = []
    totals: list[float] = []
    for penalty in _PENALTIES:
        weights = problem.minimise(weights, penalty)
        tried.append(problem.scores(weights))
        totals.append(float(tried[-1][1][splits.test].mean()))
        best = int(np.argmin(totals))
        if len(totals) - 1 - best >= _WORSE:
            break
    losses = np.stack([loss for _, loss, _, _ in tried])  # (P, S, n)
    chosen = _choose(losses, splits)
    places = np.arange(len(chosen))
    hits, loss, predictions, confidence = (np.stack(parts)[chosen, places] for parts in zip(*tried, strict=True))
    counted = splits.test & splits.reported[:, None]
    times = counted.sum(0)
    first = counted.argmax(0)
    columns = np.arange(len(labels))
    with np.errstate(invalid="ignore"):
        return ProbeResult(
            hits=np.where(counted, hits, 0).sum(0) / times, log_losses=np.where(counted, loss, 0).sum(0) / times,
            repeats=_by_repeat(hits, counted), predictions=np.where(times > 0, predictions[first, columns], -1),
            confidence=np.where(times > 0, confidence[first, columns], np.nan),
            penalty=float(np.median(np.array(_PENALTIES)[chosen[splits.reported]])),
        )  # fmt: skip


def _by_repeat(hits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Put the test images of splits together, (R, n): the first time that each image was scored, the second, ..."""
    number = counted.cumsum(0) - 1
    rows = np.full((int(counted.sum(0).max()), hits.shape[1]), np.nan)
    splits, images = np.nonzero(counted)
    rows[number[splits, images], images] = hits[splits, images]
    return rows


def _choose(losses: np.ndarray, splits: Splits) -> np.ndarray:
    """Return the place of each split's penalty, (S,)."""
    chosen = []
    for own in splits.test:
        others = splits.test & ~own
        counted = others if others.any() else splits.test
        chosen.append(int(np.argmin(losses[:, counted].mean(1))))
    return np.array(chosen)


class _Problem:
    """Penalised logistic regressions on weighted rows of one matrix, all fitted at once."""

    def __init__(self, points: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor, classes: int) -> None:
        """Args:
        points: (n, r) float32, uncorrelated columns.
        targets: (n,) int64.
        rows: (S, n) float32, weight of each row in each regression; sums are 1.
        classes: number C of classes.
        """
        ones = torch.ones(len(points), 1, device=points.device)
        self._points = torch.cat([points, ones], 1)  # the last weight is the intercept
        self._targets = targets
        self._rows = rows.T.contiguous()[:, :, None]  # (n, S, 1)
        self._classes = classes
        self._variances = points.square().mean(0)
        self._penalised = torch.cat([torch.ones(points.shape[1]), torch.zeros(1)]).to(points.device)[:, None]

    def _log_probabilities(self, weights: torch.Tensor) -> torch.Tensor:
        flat = weights.permute(1, 0, 2).reshape(weights.shape[1], -1)  # (r + 1, S * C)
        return (self._points @ flat).view(len(self._points), len(weights), -1).log_softmax(-1)  # (n, S, C)

    def _loss(self, weights: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
        # -> loss (S,), gradient (S, r + 1, C)
        logs = self._log_probabilities(weights)
        own = logs.gather(-1, self._targets[:, None, None].expand(-1, logs.shape[1], 1))  # (n, S, 1)
        shrunk = self._penalised * weights
        loss = -(own * self._rows).sum((0, 2)) + penalty / 2 * (shrunk * weights).sum((1, 2))
        slopes = logs.exp_()
        slopes.scatter_add_(-1, self._targets[:, None, None].expand(-1, logs.shape[1], 1), -torch.ones_like(own))
        slopes *= self._rows
        gradient = (self._points.T @ slopes.view(len(self._points), -1)).view(-1, len(weights), self._classes)
        return loss, gradient.permute(1, 0, 2) + penalty * shrunk

    def minimise(self, weights: torch.Tensor, penalty: float) -> torch.Tensor:
        """Fit by L-BFGS (Liu & Nocedal 1989), each regression with steps of its own.

        Columns are uncorrelated, so that the diagonal is a good first guess of the curvature.

        Args:
            weights: (S, r + 1, C) to begin with.
            penalty: strength of the penalty on squared weights.

        Returns:
            (S, r + 1, C).
        """
        curvature = torch.cat([self._variances / self._classes + penalty, self._variances.new_full((1,), 0.25)])[
            :, None
        ]
        loss, gradient = self._loss(weights, penalty)
        history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for _ in range(_ITERATIONS):
            direction = -_two_loops(gradient, history, curvature)
            slope = (direction * gradient).sum((1, 2))
            step = torch.ones_like(loss)
            for _ in range(_BACKTRACKS):
                moved = weights + step[:, None, None] * direction
                new_loss, new_gradient = self._loss(moved, penalty)
                short = ~(new_loss <= loss + 1e-4 * step * slope)
                if not bool(short.any()):  # on an accelerator the host waits here, and where the fit may end
                    break
                step = torch.where(short, step / 3, step)
            else:  # no better point along the line, within rounding: these stay where they are
                moved = torch.where(short[:, None, None], weights, moved)
                new_loss, new_gradient = self._loss(moved, penalty)
            change, turn = moved - weights, new_gradient - gradient
            product = (change * turn).sum((1, 2))
            history = [*history[-_HISTORY + 1 :], (change, turn, torch.where(product > 1e-12, 1 / product, 0.0))]
            settled = (loss - new_loss) <= _ENOUGH * new_loss.abs().clamp_min(1e-3)
            weights, loss, gradient = moved, new_loss, new_gradient
            if bool(settled.all()):
                break
        return weights

    def scores(self, weights: torch.Tensor) -> tuple[np.ndarray, ...]:
        """Return hits, log-losses, predictions and their probability, each (S, n), of all rows in all regressions."""
        logs = self._log_probabilities(weights)
        own = logs.gather(-1, self._targets[:, None, None].expand(-1, logs.shape[1], 1))[..., 0]
        top, predictions = logs.max(-1)
        hits = (predictions == self._targets[:, None]).double()
        return tuple(values.T.cpu().numpy() for values in (hits, -own.double(), predictions, top.exp().double()))


def _two_loops(
    gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], curvature: torch.Tensor
) -> torch.Tensor:
    """Multiply a gradient by the inverse curvature that the last steps have shown."""
    result, kept = gradient, []
    for change, turn, inverse in reversed(history):
        share = inverse * (change * result).sum((1, 2))
        kept.append(share)
        result = result - share[:, None, None] * turn
    result = result / curvature
    if history:
        change, turn, _ = history[-1]
        fit = (change * turn).sum((1, 2)) / (turn.square() / curvature).sum((1, 2)).clamp_min(1e-30)
        result = result * torch.where(fit > 0, fit, 1.0)[:, None, None]
    for (change, turn, inverse), share in zip(history, reversed(kept), strict=True):
        result = result + (share - inverse * (turn * result).sum((1, 2)))[:, None, None] * change
    return result
