"""What a report shows of an agent's training: transcripts, in which the model's words are coloured by advantage."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from evaluation.report.markup import Markup, details, joined, tag
from storage.agent_transcripts import Passage, Transcript, read_transcripts

_SHADES = 3  # of each colour


def transcripts_part(path: Path) -> Markup | None:
    """Show rollouts of the first epoch and of the last: what was read in grey, what was said in its colour.

    Args:
        path: folder of the run.
    """
    found = read_transcripts(path)
    if not found:
        return None
    legend = tag(
        "p",
        "The best and the worst rollouts of some tasks. What the model said is ",
        tag("mark", "green, underlined", class_=f"said up{_SHADES}"), ", where it became likelier; ",
        tag("mark", "red, dotted", class_=f"said down{_SHADES}"), ", where it became less likely; the deeper the "
        "colour, the larger the advantage. ",
        tag("span", "Grey", class_="faint"), " is what it read, and is not trained on.",
    )  # fmt: skip
    largest = max((abs(each.advantage or 0.0) for each in found), default=0.0)
    parts = [legend]
    epochs = [(epoch, list(some)) for epoch, some in groupby(found, key=lambda each: each.epoch)]
    for number, (epoch, some) in enumerate(epochs):
        shown = [_shown(each, largest) for each in some]
        last = number == len(epochs) - 1
        parts.append(joined([tag("h3", f"Epoch {epoch}"), *shown]) if last else details(f"Epoch {epoch}", *shown))
    return joined(parts)


def _shown(transcript: Transcript, largest: float) -> Markup:
    shade = shade_of(transcript.advantage, largest)
    words = [f"task {transcript.task}, rollout {transcript.sample}"]
    words.append("no reward" if transcript.reward is None else f"reward {transcript.reward:.4g}")
    words += [] if transcript.advantage is None else [f"advantage {transcript.advantage:+.3g}"]
    words += [] if transcript.outcome == "done" else [transcript.outcome]
    rows = [tag("p", *_row(row, shade), class_="said-row") for row in transcript.rows]
    if transcript.cut:
        rows.append(tag("p", "Its end is left out.", class_="faint"))
    told = tag("p", transcript.told, class_="bad") if transcript.told else None
    return tag(
        "article", tag("h4", ", ".join(words)), told, *(rows or [tag("p", "Nothing was asked.", class_="faint")]),
        class_="transcript",
    )  # fmt: skip


def _row(row: Sequence[Passage], shade: str) -> list[Markup]:
    return [
        tag("mark", passage.text, class_=f"said {shade}".strip()) if passage.sampled else tag("span", passage.text)
        for passage in row
    ]


def shade_of(advantage: float | None, largest: float) -> str:
    """Return the class of a colour: `up1` to `up3` above 0, `down1` to `down3` below; empty for 0.

    Args:
        advantage: advantage of what is coloured.
        largest: the largest advantage, in size, of what is shown.
    """
    if not advantage or not largest:
        return ""
    depth = min(_SHADES, 1 + int(_SHADES * abs(advantage) / largest))
    return f"{'up' if advantage > 0 else 'down'}{depth}"
