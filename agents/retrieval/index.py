"""Passages are found: by words (BM25, SQLite's FTS5), and by meaning where vectors are given."""

import json
import math
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from agents.retrieval.passage import Passage
from data.data_error import DataError

_RANKS = 60  # of reciprocal rank fusion (Cormack et al. 2009)
_WORDS = re.compile(r"\w+")
# Words of English that say nothing of what is asked; those of other languages are known by standing in most passages.
_EMPTY = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "did", "do", "does", "for", "from", "had", "has",
    "have", "how", "i", "in", "is", "it", "its", "me", "my", "of", "on", "or", "our", "she", "he", "that",
    "the", "their", "them", "they", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who",
    "why", "will", "with", "you", "your",
))  # fmt: skip


class PassageIndex:
    """Passages with an index over their words.

    Args:
        path: file of the index, or `:memory:`.

    Raises:
        DataError: this Python's SQLite has no FTS5.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._connection = sqlite3.connect(path)
        try:
            self._connection.executescript(
                "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, text, tokenize='porter unicode61');"
                "CREATE TABLE IF NOT EXISTS passages (id INTEGER PRIMARY KEY, text TEXT, source TEXT, title TEXT, "
                "vector TEXT);"
            )
        except sqlite3.OperationalError as error:
            raise DataError(f"passages are found by SQLite's FTS5, which this Python has not: {error}") from None
        rows = self._connection.execute("SELECT vector FROM passages WHERE vector IS NOT NULL ORDER BY id")
        self._vectors: list[list[float]] = [json.loads(vector) for (vector,) in rows]

    def add(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]] = ()) -> None:
        """Add passages.

        Args:
            passages: the passages.
            vectors: a vector for each, or none at all.
        """
        with self._connection as connection:
            for at, one in enumerate(passages):
                vector = json.dumps(_unit(vectors[at])) if vectors else None
                row = connection.execute("INSERT INTO passages (text, source, title, vector) VALUES (?, ?, ?, ?)",
                                         (one.text, one.source, one.title, vector)).lastrowid  # fmt: skip
                connection.execute(
                    "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (row, one.title, one.text)
                )
        self._vectors += [_unit(vector) for vector in vectors]

    @property
    def has_vectors(self) -> bool:
        """Whether passages have vectors."""
        return bool(self._vectors)

    def all(self) -> list[Passage]:
        """Return all passages, in their order."""
        rows = self._connection.execute("SELECT text, source, title FROM passages ORDER BY id")
        return [Passage(*row) for row in rows]

    def nearest(self, question: str, count: int, vector: Sequence[float] | None = None) -> list[Passage]:
        """Return the passages that fit a question best, the best first; none where no word of it is in any.

        Args:
            question: the question.
            count: how many at most.
            vector: the question's vector, where passages have some: the two orders are joined by their ranks.
        """
        asked = " OR ".join(f'"{word}"' for word in self._telling(question))
        query = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0), rowid LIMIT ?"
        by_words = [int(row) for (row,) in self._connection.execute(query, (asked, _RANKS))] if asked else []
        orders = [by_words]
        if vector is not None and self._vectors:
            unit = _unit(vector)
            like = [sum(a * b for a, b in zip(unit, other, strict=True)) for other in self._vectors]
            orders.append(sorted(range(1, len(like) + 1), key=lambda row: (-like[row - 1], row))[:_RANKS])
        score: dict[int, float] = {}
        for order in orders:
            for rank, row in enumerate(order):
                score[row] = score.get(row, 0.0) + 1 / (_RANKS + rank)
        best = sorted(score, key=lambda row: (-score[row], row))[:count]
        query = "SELECT text, source, title FROM passages WHERE id = ?"
        return [Passage(*self._connection.execute(query, (row,)).fetchone()) for row in best]

    def _telling(self, question: str) -> list[str]:
        """Return the words of a question that tell passages apart."""
        words = [word for word in dict.fromkeys(_WORDS.findall(question.lower())) if word not in _EMPTY]
        (count,) = self._connection.execute("SELECT COUNT(*) FROM passages").fetchone()
        query = "SELECT COUNT(*) FROM words WHERE words MATCH ?"
        often = {word: self._connection.execute(query, (f'"{word}"',)).fetchone()[0] for word in words}
        return [word for word in words if 2 * often[word] <= count] or words

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(one * one for one in vector)) or 1.0
    return [one / length for one in vector]
