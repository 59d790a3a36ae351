"""What somebody probably meant by a name that there is not."""

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name that is nearest to one that was written, whatever their case; None where nothing is near.

    Args:
        given: name as it was written.
        known: names that there are.
        cutoff: how alike they must be, from 0 to 1 (difflib's ratio).
    """
    by_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), by_case, n=1, cutoff=cutoff)
    return by_case[close[0]] if close else None


def meant(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?`, to be put behind a message; "" where no name is near.

    Args:
        given: name as it was written.
        known: names that there are.
    """
    near = nearest(given, known)
    return f"; did you mean {near}?" if near else ""
