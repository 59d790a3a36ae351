"""What a report says of a language model: its answers, and the data that it was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constants.counting import counted
from evaluation.report.markup import Markup, joined, table, tag
from storage.text_samples import TextSample, read_samples


def samples_part(path: Path) -> Markup | None:
    """Show what a language model answers to prompts of held-out data, each prompt with its answers below.

    Args:
        path: folder of the run.
    """
    samples = read_samples(path)
    if not samples:
        return None
    how = "Answers to prompts of held-out data, by the best weights. The model reads a prompt as it stands here."
    return joined([tag("p", how), *(_sample(each) for each in samples)])


def data_part(summary: Mapping[str, Any]) -> Markup | None:
    """Show what became of the rows of text that a run has read.

    Args:
        summary: the run's totals; `data.token_rows.RowAccount.state` of each source is among them.
    """
    accounts = {name: value for name, value in summary.items() if is_account(value)}
    if not accounts:
        return None
    rows, further = [], []
    for name, account in accounts.items():
        read, used = account["rows_read"], account["rows_used"]
        trained, tokens = account["trained_tokens"], account["tokens"]
        share = f"{trained:,} ({100 * trained / tokens:.0f} %)" if tokens else "0"
        shown = name.removesuffix("_data")
        rows.append((shown, account["source"], f"{read:,}", f"{used:,}", f"{read - used:,}", f"{tokens:,}", share))
        places = account.get("places_left_out", {})
        for reason, count in account["rows_left_out"].items():
            named = ", ".join(places.get(reason, ()))
            further.append((shown, f"left out: {reason}", f"{count:,}", named))
        further += [(shown, note, f"{count:,}", "") for note, count in account.get("notes", {}).items()]
        further.append((shown, "SHA-256 of the files", "", account["sha256"]))
    head = ("data", "source", "rows read", "used", "left out", "tokens", "trained on")
    parts = [table(head, rows, "Rows of text, and the tokens made of them")]
    parts.append(table(("data", "what", "rows", "where"), further, "What else is known of the rows"))
    return joined(parts)


def is_account(value: object) -> bool:
    """Say whether a value of a run's summary is the account of a source of text."""
    return isinstance(value, dict) and {"source", "sha256", "rows_read", "rows_used", "trained_tokens"} <= value.keys()


def _sample(sample: TextSample) -> Markup:
    ends = {"stop": "", "length": f", cut off after {counted(sample.tokens, 'token')}"}
    end = ends.get(sample.finish, f", {sample.finish}")
    rows = [("prompt", _text(sample.prompt))]
    rows += [("before training", _text(sample.before))] if sample.before else []
    rows.append((f"answer{end}", _text(sample.answer)))
    rows += [("the data's answer", _text(sample.expected))] if sample.expected else []  # an agent's tasks have none
    return table(("", "text"), rows, sample.place)


def _text(text: str) -> Markup:
    """Show text as it is; of white space alone say so, which nobody would see."""
    if not text.strip():
        return tag("em", f"white space alone, {counted(len(text), 'character')}" if text else "nothing")
    return tag("pre", text, class_="wrapped")
