"""All rows of a source as tokens, with the account of every row that was read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constants.counting import counted
from data.chat_messages import Document, RowError
from data.chat_renderer import Renderer, RenderNotes
from data.conversations import Row, TextSource
from data.data_error import DataError
from data.held_out import set_apart
from data.tensor_loader import epoch_generator
from data.token_row import TokenRow

STOP, SKIP = "stop", "skip"
_SHOWN = 5  # places of a reason that are named
_CUT = "a document is longer than max_length: it was cut into pieces"
_SOME_TOO_LONG = "some answers of a conversation are longer than max_length, with what comes before: left out"


@dataclass
class RowAccount:
    """What became of the rows of a source: read = used + left out.

    Attributes:
        source: what was read, and its format.
        read: number of rows read.
        used: number of rows used.
        left_out: for each reason the places of the rows, with what only they have.
        notes: for each thing that was done and that the data doesn't say, the places of the rows.
        rows: number of rows of tokens; a conversation may be several, a document many.
        tokens: number of tokens.
        trained: number of tokens that are trained on.
        longest: tokens of the longest row that was read.
        digest: SHA-256 of the files.
    """

    source: str
    read: int = 0
    used: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    rows: int = 0
    tokens: int = 0
    trained: int = 0
    longest: int = 0
    digest: str = ""

    def leave_out(self, place: str, reason: str, detail: str = "") -> None:
        """Count a row that is not used."""
        self.left_out.setdefault(reason, []).append(f"{place}: {detail}" if detail else place)

    def refuse(self, path: Path | str, place: str, error: RowError, on_bad_row: str) -> None:
        """Leave out a row that can't be used, or end the run over it.

        Args:
            path: what is read.
            place: where the row is in it, such as `line 5`.
            error: why it can't be used.
            on_bad_row: `stop` or `skip`.

        Raises:
            DataError: with `stop`.
        """
        if on_bad_row == STOP:
            raise DataError(
                f"{path}, {place}: {error}. Mend the row, or leave such rows out with on_bad_row = {SKIP}."
            ) from error
        self.leave_out(place, error.reason, error.detail)

    def reasons(self) -> str:
        """Say in one sentence why rows were left out, each reason with its first place; empty where none was."""
        return "; ".join(f"{reason} [{places[0]}]" for reason, places in self.left_out.items())

    def lines(self) -> list[str]:
        """Write the account, a line for each fact."""
        lost = self.read - self.used
        share = f" ({100 * self.trained / self.tokens:.0f} %)" if self.tokens else ""
        done = [
            self.source,
            f"rows: {self.read:,} read = {self.used:,} used + {lost:,} left out",
            f"tokens: {self.tokens:,} in {self.rows:,} rows of tokens, {self.trained:,}{share} are trained on",
        ]
        done += [f"left out, {len(places):,}: {reason} [{_some(places)}]" for reason, places in self.left_out.items()]
        for note, places in self.notes.items():
            where = "" if len(places) == self.used else f" [{_some(places)}]"
            done.append(f"{counted(len(places), 'row')}: {note}{where}")
        return done

    def state(self) -> dict[str, Any]:
        """Return the account as plain data, for metrics.json."""
        return {
            "source": self.source, "sha256": self.digest, "rows_read": self.read, "rows_used": self.used,
            "rows_left_out": {reason: len(places) for reason, places in self.left_out.items()},
            "places_left_out": {reason: places[:_SHOWN] for reason, places in self.left_out.items()},
            "notes": {note: len(places) for note, places in self.notes.items()},
            "token_rows": self.rows, "tokens": self.tokens, "trained_tokens": self.trained,
        }  # fmt: skip


def token_rows(
    source: TextSource, renderer: Renderer, max_length: int, on_bad_row: str = SKIP, limit: int = 0
) -> tuple[list[TokenRow], RowAccount]:
    """Turn a source into rows of tokens, each up to its last trained token.

    Args:
        source: rows of text, of a known format.
        renderer: renderer of conversations.
        max_length: most tokens of a row: a longer conversation is left out, a longer document cut into pieces, of
            which each begins with the last token of the one before, so that every token is trained on once.
        on_bad_row: `skip` leaves out rows that can't be used, and counts them; `stop` ends at the first.
        limit: number of used rows after which reading stops; 0 for all.

    Returns:
        The rows, and the account of what was read.

    Raises:
        DataError: a row that can't be used (with `stop`), or no row is left.
    """
    if on_bad_row not in (STOP, SKIP):
        raise DataError(f"on_bad_row is {on_bad_row}; allowed are {STOP} and {SKIP}.")
    if max_length < 2:
        raise DataError(f"max_length is {max_length}; it must be at least 2.")
    account = RowAccount(source.told(), digest=source.files.digest())
    done: list[TokenRow] = []
    too_long: list[int] = []
    for row in source.rows():
        account.read += 1
        try:
            new, longest = _rows_of(row, renderer, max_length, account)
        except RowError as error:
            account.refuse(source.path, row.place, error, on_bad_row)
            continue
        account.longest = max(account.longest, longest)
        if not new:
            too_long.append(longest)
            if on_bad_row == STOP:
                raise DataError(
                    f"{source.path}, {row.place}: the row needs {longest:,} tokens, more than max_length={max_length}. "
                    f"Give a larger max_length, or leave such rows out with on_bad_row = {SKIP}."
                )
            account.leave_out(row.place, f"longer than max_length={max_length}", f"{longest:,} tokens")
            continue
        account.used += 1
        done += new
        if limit and account.used == limit:
            break
    account.rows, account.tokens = len(done), sum(len(row.ids) for row in done)
    account.trained = sum(row.trained for row in done)
    if not done:
        raise DataError(_nothing_left(source, account, max_length, too_long))
    return done, account


def split_rows(rows: Sequence[TokenRow], share: float, seed: int = 0) -> tuple[list[TokenRow], list[TokenRow]]:
    """Set rows apart for validation.

    Rows of one place (turns of a conversation, pieces of a document), and rows of the same tokens where not all are
    the same, stay on one side: a model must not be measured by what it was trained on.

    Args:
        rows: rows of tokens.
        share: share of the rows for validation, 0 to below 1. Above 0 it is one place at least, and never all.
        seed: seed of the choice.

    Returns:
        The rows to train on, and those to validate with; each in the order in which they came.

    Raises:
        DataError: the share is out of range, or all rows are of one place.
    """
    if not 0 <= share < 1:
        raise DataError(f"val_share is {share:g}; it must be at least 0 and below 1.")
    if share == 0:
        return list(rows), []
    roots = _belonging(rows, tokens=True)
    if len(set(roots)) < 2:
        roots = _belonging(rows, tokens=False)  # one row again and again: what is asked for is to know it by heart
    if len(set(roots)) < 2:
        raise DataError(
            f"all that can be used ({counted(len(rows), 'row')} of tokens) is of one place, "
            f"{rows[0].place or 'unnamed'}: none is left to validate with. Give more rows, or val_data."
        )
    return set_apart(rows, roots, share, epoch_generator(seed, 0))


def _belonging(rows: Sequence[TokenRow], tokens: bool) -> list[int]:
    """Return of each row the first row that it belongs together with: by place, and perhaps by its tokens."""
    first: dict[object, int] = {}
    group = list(range(len(rows)))

    def root(number: int) -> int:
        while group[number] != number:
            number = group[number]
        return number

    for number, row in enumerate(rows):
        keys: list[object] = [row.place] if row.place else []
        for key in [*keys, *([row.ids.numpy().tobytes()] if tokens else [])]:
            one, other = root(first.setdefault(key, number)), root(number)
            group[max(one, other)] = min(one, other)
    return [root(number) for number in range(len(rows))]


def _rows_of(row: Row, renderer: Renderer, max_length: int, account: RowAccount) -> tuple[list[TokenRow], int]:
    """Return the rows of an example that fit, and the tokens of its longest."""
    if isinstance(row.example, RowError):
        raise row.example
    mine = RenderNotes()
    rows = [made.needed() for made in renderer.train_rows(row.example, row.place, mine)]
    rows = [made for made in rows if len(made.ids)]
    if not rows:
        raise RowError("there is no answer: nothing in it is trained on")
    longest = max(len(made.ids) for made in rows)
    if isinstance(row.example, Document) and longest > max_length:
        rows = [piece for made in rows for piece in _pieces(made, max_length)]
        mine.add(_CUT)
    fitting = [made for made in rows if len(made.ids) <= max_length]
    if fitting and len(fitting) < len(rows):
        mine.add(_SOME_TOO_LONG)
    if fitting:
        for note in mine.counts:
            account.notes.setdefault(note, []).append(row.place)
    return fitting, longest


def _pieces(row: TokenRow, max_length: int) -> Iterator[TokenRow]:
    for start in range(0, len(row.ids) - 1, max_length - 1):
        weights = row.weights[start : start + max_length].clone()
        weights[0] = 0  # it is trained on in the piece before
        yield TokenRow(row.ids[start : start + max_length], weights, row.place)


def _nothing_left(source: TextSource, account: RowAccount, max_length: int, too_long: list[int]) -> str:
    """Say why no row is left, with figures."""
    parts = []
    for reason, places in account.left_out.items():
        count = f"{len(places):,} of {account.read:,} rows"
        if reason.startswith("longer than max_length"):
            low, high = min(too_long), max(too_long)
            need = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            parts.append(f"{count} are longer than max_length={max_length}: they need {need} tokens")
        else:
            parts.append(f"{count}: {reason} [{_some(places)}]")
    advice = f" Give max_length={max(too_long)} for all of them to fit." if too_long else ""
    return f"{source.path}: nothing is left to learn. {'; '.join(parts) or 'There is no row'}.{advice}"


def _some(places: list[str]) -> str:
    more = f", and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return ", ".join(places[:_SHOWN]) + more
