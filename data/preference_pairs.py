"""Pairs of answers as tokens, of which the answer alone counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.chat_messages import Completion, Conversation, RowError
from data.chat_renderer import Renderer
from data.data_error import DataError
from data.held_out import set_apart
from data.preferences import read_preferences
from data.tensor_loader import epoch_generator
from data.text_files import find_files
from data.token_row import TokenRow
from data.token_rows import RowAccount


@dataclass(frozen=True)
class PreferencePair:
    """Two answers as tokens, of which the answer alone counts."""

    chosen: TokenRow
    rejected: TokenRow


def preference_pairs(
    path: Path, renderer: Renderer, max_length: int, on_bad_row: str, columns: str = ""
) -> tuple[list[PreferencePair], RowAccount]:
    """Turn files into pairs of rows of tokens.

    Args:
        path: file or folder.
        renderer: renderer of conversations.
        max_length: most tokens of a row; a pair with a longer one is left out.
        on_bad_row: `skip` leaves out rows that can't be used, and counts them; `stop` ends at the first.
        columns: names of columns that are called otherwise.

    Returns:
        The pairs, and the account of what was read.

    Raises:
        DataError: a row that can't be used (with `stop`), or no pair is left.
    """
    files = find_files(path)
    account = RowAccount(f"{path}: {files.kinds}, pairs of answers", digest=files.digest())
    pairs: list[PreferencePair] = []
    for place, row in read_preferences(path, columns):
        account.read += 1
        try:
            if isinstance(row, RowError):
                raise row
            rows = [_row(example, place, renderer) for example in (row.chosen, row.rejected)]
            longest = max(len(one.ids) for one in rows)
            account.longest = max(account.longest, longest)
            if longest > max_length:
                raise RowError(f"longer than max_length={max_length}", f"{longest:,} tokens")
        except RowError as error:
            account.refuse(path, place, error, on_bad_row)
            continue
        account.used += 1
        pairs.append(PreferencePair(*rows))
    both = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    account.rows, account.tokens = len(both), sum(len(row.ids) for row in both)
    account.trained = sum(row.trained for row in both)
    if not pairs:
        raise DataError(f"{path}: no pair is left to learn from. {account.reasons()}.")
    return pairs, account


def _row(example: Conversation | Completion, place: str, renderer: Renderer) -> TokenRow:
    rows = [row.needed() for row in renderer.train_rows(example, place)]
    rows = [row for row in rows if len(row.ids)]
    if len(rows) != 1:
        raise RowError("an answer is empty" if not rows else "an answer can't be told from what comes before it")
    return rows[0]


def split_pairs(
    pairs: Sequence[PreferencePair], share: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Set pairs apart for validation; those of one question stay on one side.

    Args:
        pairs: pairs.
        share: share of the questions for validation, above 0 and below 1.
        seed: seed of the choice.

    Raises:
        DataError: all pairs ask one question.
    """
    keys = [pair.chosen.ids[: int(pair.chosen.weights.nonzero()[0])].numpy().tobytes() for pair in pairs]
    try:
        return set_apart(pairs, keys, share, epoch_generator(seed, 0))
    except ValueError:
        raise DataError(
            "all pairs ask one question: none is left to validate with. Give other pairs too, or val_data."
        ) from None
