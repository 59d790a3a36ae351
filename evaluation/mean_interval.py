"""How far a mean over samples may be from that over all samples that there could be."""

import numpy as np

_RESAMPLES = 2000
_MOST_RESAMPLED = 20_000  # samples; beyond, the bootstrap of a mean is the normal interval to three digits
_NORMAL = 1.959964  # standard deviations to either side that hold 95 %


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over independent samples: percentile bootstrap (Efron 1979).

    It says how much the mean would vary with other test samples, not with another seed of the training.

    Args:
        values: (N,) one value a sample.
        seed: seed of the resampling.

    Returns:
        Lower and upper end; None for fewer than 3 samples, or values that are not finite.
    """
    count = len(values)
    if count < 3 or not np.isfinite(values).all():
        return None
    if count > _MOST_RESAMPLED:
        mean, error = float(values.mean()), float(values.std(ddof=1)) / count**0.5
        return mean - _NORMAL * error, mean + _NORMAL * error
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, count, count)].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
