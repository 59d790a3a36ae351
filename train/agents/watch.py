"""Signs that an agent games its reward: the reward rises while answers shrink, swell or become all the same."""

from collections.abc import Mapping, Sequence

_LENGTH, _ENTROPY = 3.0, 0.1  # times as long or short as at the start; share of the entropy that is left


def signs_of_gaming(history: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return what looks odd beside a reward that has risen.

    Args:
        history: lists by name, of which those of validations are looked at.

    Returns:
        By the name of each sign what is told of it.
    """
    reward, length = list(history.get("val_reward", ())), list(history.get("val_length", ()))
    entropy = list(history.get("val_entropy", ()))
    if len(reward) < 2 or reward[-1] <= reward[0]:
        return {}
    found = {}
    rises = f"val_reward has risen from {reward[0]:.3g} to {reward[-1]:.3g}"
    if len(length) == len(reward) and length[0] > 0:
        times = length[-1] / length[0]
        if times >= _LENGTH or times <= 1 / _LENGTH:
            found["length"] = (
                f"{rises} while val_length went from {length[0]:.3g} to {length[-1]:.3g} tokens: is it the length that "
                "is rewarded? Read some transcripts (samples.json); kl_weight holds the model back."
            )
    if len(entropy) == len(reward) and entropy[0] > 0 and entropy[-1] < _ENTROPY * entropy[0]:
        found["entropy"] = (
            f"{rises} while val_entropy fell from {entropy[0]:.3g} to {entropy[-1]:.3g}: nearly all answers are the "
            "same, and little is left to be learned. That is fine where there is one right answer; else take a lower "
            "learning_rate, or kl_weight."
        )
    return found
