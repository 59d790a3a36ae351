"""Guesses of a row's next tokens from what followed the same tokens before: several can then be checked in one pass.

With few rows a pass costs what reading the weights costs, whether it is of one token or of a few. Each token is drawn
from the model's own distribution by the row's own random numbers; guesses that were drawn too have saved a pass each,
and the first that was not ends them. So the tokens are those that would be drawn one by one.
"""

from collections.abc import Sequence

_SAME = 3  # tokens that must be the same before
_FIRST = 4  # tokens guessed at first
_LONGEST_PAUSE = 64


class Lookahead:
    """Guesses for one row.

    Args:
        prompt: tokens of the prompt.
        most: tokens guessed at a time, at most.
    """

    def __init__(self, prompt: Sequence[int], most: int) -> None:
        self._tokens, self._prompt = list(prompt), len(prompt)
        self._most, self._size = most, min(most, _FIRST)
        self._after: dict[tuple[int, ...], int] = {}  # where the tokens after these stand
        self._indexed = 0
        self._wrong, self._pause = 0, 0

    def guess(self, sampled: Sequence[int], room: int) -> list[int]:
        """Return what may follow: nothing where these tokens were not there before, or guesses were wrong lately.

        Args:
            sampled: tokens of the row after its prompt.
            room: tokens that may be guessed, at most.
        """
        self._tokens += sampled[len(self._tokens) - self._prompt :]
        tokens = self._tokens
        for end in range(max(self._indexed, _SAME), len(tokens)):  # all but the last, which nothing follows
            self._after[tuple(tokens[end - _SAME : end])] = end
        self._indexed = len(tokens)
        if self._pause:
            self._pause -= 1
            return []
        begin = self._after.get(tuple(tokens[-_SAME:]))
        if begin is None:
            return []
        follows = tokens[begin:]  # and again from there, where the end is reached
        size = min(self._size, room)
        return (follows * (size // len(follows) + 1))[:size]

    def tell(self, guessed: int, right: int) -> None:
        """Learn how many guesses were right: more are made, or fewer, or none for a while."""
        if right == guessed:
            self._size = min(self._most, 2 * self._size)
        else:
            self._size = max(1, right + 1)
        self._wrong = 0 if right else self._wrong + 1
        if self._wrong > 1:
            self._pause = min(_LONGEST_PAUSE, 2**self._wrong)
