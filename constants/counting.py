"""Counts in words."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun: `1 epoch`, `3 epochs`, `12,000 batches`.

    Args:
        count: how many there are.
        noun: what they are, for one.
        plural: what they are, for several; None lets the noun end as most English nouns do.
    """
    if plural is None:
        plural = f"{noun}es" if noun.endswith(("s", "sh", "tch", "x")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
