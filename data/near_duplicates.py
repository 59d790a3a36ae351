"""Texts that are nearly the same: their character trigrams have more in common than they don't (Jaccard index).

All pairs above a threshold are found, without looking at each pair: two sets that have so much in common share one of
their rarest elements (prefix filtering; Bayardo, Ma and Srikant, 2007). A workflow takes a copy of this file with it.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

NEAR = 0.7


def trigrams(text: str) -> set[str]:
    """Return the character trigrams of a text, without case and signs."""
    plain = re.sub(r"\W+", " ", text.casefold()).strip()
    return {plain[place : place + 3] for place in range(max(len(plain) - 2, 1))} if plain else set()


def near_pairs(texts: Sequence[str], threshold: float = NEAR) -> list[tuple[float, int, int]]:
    """Return pairs of texts that are nearly the same.

    Args:
        texts: the texts.
        threshold: share of the trigrams of both that both have, above 0.

    Returns:
        (share, place of the earlier, place of the later) of each pair, the nearest first.
    """
    sets = [trigrams(text) for text in texts]
    often = Counter(one for grams in sets for one in grams)
    rarest_first = [sorted(grams, key=lambda one: (often[one], one)) for grams in sets]
    index: dict[str, list[int]] = {}
    found = []
    for place, grams in enumerate(rarest_first):
        first = len(grams) - math.ceil(threshold * len(grams)) + 1
        whole, seen = sets[place], set[int]()
        for one in grams[:first]:
            seen.update(index.get(one, ()))
            index.setdefault(one, []).append(place)
        for other in seen:
            shorter, longer = sorted((len(grams), len(sets[other])))
            if shorter < threshold * longer:
                continue
            both = len(whole & sets[other])
            share = both / (len(grams) + len(sets[other]) - both)
            if share >= threshold:
                found.append((share, other, place))
    return sorted(found, key=lambda one: (-one[0], one[1], one[2]))
