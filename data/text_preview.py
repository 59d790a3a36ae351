"""What a run would learn of its data, to be looked at: what is trained on, and the account of rows."""

import re
from collections.abc import Collection, Sequence
from itertools import groupby

from data.chat_messages import ROLES
from data.chat_renderer import Renderer
from data.chat_template import quoted
from data.token_row import TokenRow
from data.token_rows import RowAccount

_TRAINED, _READ, _PLAIN = "\033[1;32m", "\033[2m", "\033[0m"
_MOST_CHARACTERS = 1500  # of a part that is only read; what is trained on is shown whole
_MOST_IDS = 24
_ROLES = {*ROLES, "human", "model"}


def preview(
    rows: Sequence[TokenRow], accounts: Sequence[RowAccount], renderer: Renderer, count: int = 3, colour: bool = False
) -> list[str]:
    """Show the first rows as they are trained on.

    Args:
        rows: rows of tokens.
        accounts: of each source what became of its rows.
        renderer: renderer that made them.
        count: number of rows to show.
        colour: mark what is trained on by colour, where a terminal wants it (`storage.log_lines`); else by [brackets].

    Returns:
        Lines of text: the accounts, what the template does, then the rows.
    """
    told = [line for account in accounts for line in account.lines()]
    return [*told, *template_lines(renderer), *marked_rows(rows[:count], renderer, colour)]


def marked_rows(rows: Sequence[TokenRow], renderer: Renderer, colour: bool) -> list[str]:
    """Show rows as they are trained on.

    Args:
        rows: rows of tokens.
        renderer: renderer whose tokenizer decodes.
        colour: mark what is trained on by colour; else by [brackets].

    Returns:
        Lines of text: how it is marked, then the rows.
    """
    how = f"{_TRAINED}green{_PLAIN}" if colour else "in [brackets]"
    lines = [f"trained on is what is {how}"]
    for number, row in enumerate(rows, 1):
        lines += ["", f"--- row {number}, {row.place}: {len(row.ids):,} tokens, {row.trained:,} trained on"]
        lines += marked_text(row, renderer, colour).split("\n")
        lines.append(f"ids: {_ids(row)}")
    return lines


def template_lines(renderer: Renderer) -> list[str]:
    """Say what a template does beside what the data says.

    Args:
        renderer: renderer with the template.
    """
    tokenizer = renderer.tokenizer
    ends = ", ".join(f"{tokenizer.convert_ids_to_tokens(number)} ({number})" for number in renderer.end_ids)
    lines = [f"an answer ends with {renderer.end_of_turn}; ids that end it: {ends}"]
    if renderer.refused is not None:
        lines.append(f"conversations can't be used: {renderer.refused}")
    elif not tokenizer.chat_template:
        lines.append(f"the tokenizer has no chat template of its own; used is {quoted(renderer.template)}")
    if renderer.added:
        lines.append(f"without a system message the template adds: {printable(renderer.added).strip()}")
    if renderer.lacks_bos:
        lines.append("the tokenizer begins text with a special token; the template begins no conversation with it, so "
                     "there is none here, as in transformers")  # fmt: skip
    if renderer.uses_clock:
        lines.append(f"the template writes the date; here it always is {renderer.now:%Y-%m-%d}")
    return lines


def marked_text(row: TokenRow, renderer: Renderer, colour: bool) -> str:
    """Decode a row, with marks around what is trained on.

    Args:
        row: row of tokens.
        renderer: renderer whose tokenizer decodes.
        colour: mark by colour; else by [brackets].
    """
    parts = []
    pairs = list(zip(row.ids.tolist(), row.weights.tolist(), strict=True))
    for trained, tokens in groupby(pairs, key=lambda pair: pair[1] != 0):
        text = renderer.tokenizer.decode([token for token, _ in tokens], skip_special_tokens=False)
        text = printable(text)
        if not trained and len(text) > _MOST_CHARACTERS:
            half = _MOST_CHARACTERS // 2
            text = f"{text[:half]} ... {len(text) - 2 * half:,} characters ... {text[-half:]}"
        if colour:
            parts.append(f"{_TRAINED if trained else _READ}{text}{_PLAIN}")
        else:
            parts.append(f"[{text}]" if trained else text)
    return "".join(parts)


def _ids(row: TokenRow) -> str:
    ids = [str(number) for number in row.ids.tolist()]
    if len(ids) > 2 * _MOST_IDS:
        ids = [*ids[:_MOST_IDS], "...", *ids[-_MOST_IDS:]]
    return " ".join(ids)


def as_said(text: str, special: Collection[str]) -> list[str]:
    """Return what is said in rendered text, such as `user: Hi`: who speaks and what, without the template's signs.

    Args:
        text: text as the model reads it.
        special: texts of the tokenizer's special tokens, between which roles and messages stand.

    Returns:
        A line for each message, white space brought together; of text without roles the text.
    """
    found, speaker = [], ""
    signs = "|".join(re.escape(each) for each in sorted(special, key=len, reverse=True))
    for part in re.split(f"({signs})", text) if signs else [text]:
        if part in special:
            role = re.sub(r"[\W_]", "", part).lower()  # <|user|>, <|im_start|>, [INST]
            speaker = role if role in _ROLES else speaker
            continue
        first, _, rest = part.strip().partition("\n")
        if first.strip().lower() in _ROLES and part is not text:
            speaker, part = first.strip().lower(), rest
        if said := " ".join(printable(part).split()):
            found.append(f"{speaker}: {said}" if speaker else said)
    return found


def printable(text: str) -> str:
    """Write control characters as escapes: text of others must not steer a terminal.

    Args:
        text: the text; its line breaks and tabs stay.
    """
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
