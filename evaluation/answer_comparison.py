"""Two models' answers measured against the same references: scores, and the interval of their difference."""

from collections.abc import Sequence

import numpy as np

from evaluation.text_metrics import chrf, exact_match, paired_bootstrap

_FEWEST = 3  # samples of which an interval says anything


def compared(name: str, before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return the mean scores of two models on the same samples, and their difference with its interval.

    Args:
        name: name of the score.
        before: (N,) scores of the first.
        after: (N,) scores of the second, in the same order.

    Returns:
        `<name>`, `<name>_before` and `<name>_gain`; of 3 samples or more also `<name>_gain_low` and `<name>_gain_high`,
            the ends of the 95 % interval (paired bootstrap).
    """
    found = {name: float(np.mean(after)), f"{name}_before": float(np.mean(before))}
    found[f"{name}_gain"] = found[name] - found[f"{name}_before"]
    if len(before) >= _FEWEST:
        gain = paired_bootstrap(before, after)
        found |= {f"{name}_gain_low": gain.low, f"{name}_gain_high": gain.high}
    return found


def compared_answers(
    before: Sequence[str], after: Sequence[str], references: Sequence[str], with_chrf: bool = True
) -> dict[str, float]:
    """Compare the answers of two models with those of a third.

    Args:
        before: answers of the first.
        after: answers of the second.
        references: answers of the third.
        with_chrf: whether chrF is measured, which needs sacrebleu.

    Returns:
        What `compared` returns, of `agreement` (1 where an answer is the third's to the letter, else 0) and of `chrf`
            (0 to 100, the mean of the answers).
    """
    found = compared("agreement", *(exact_match(answers, references).samples for answers in (before, after)))
    if with_chrf:
        found |= compared("chrf", *(chrf(answers, references).samples for answers in (before, after)))
    return found
