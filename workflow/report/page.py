"""A report as one page, which needs no other file and no network."""

import math
from html import escape

from constants.time_spans import span
from workflow.estimates.spending import money
from workflow.report.content import Report, StepReport
from workflow.report.markdown import count_text
from workflow.report.sections import Bar, Curve, SectionContent

_WIDTH, _HEIGHT, _EDGE = 640, 200, 44
_HEAD = ["", "step", "state", "time", "what was checked"]
_BAR = 40  # height of a bar with its name
_MOST = 600  # points of a curve; of more each is the mean of some
_STYLE = """
:root { --ink: #1f2430; --soft: #667085; --line: #e3e6ec; --back: #ffffff; --accent: #3565c9; --good: #1a7f4b;
  --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ee; --soft: #98a2b3; --line: #2c3240; --back: #14171f;
  --accent: #7fa5f5; --good: #4cc38a; --bad: #f97066; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--soft); font-weight: 500; }
td, th { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.done { color: var(--good); } .failed, .stale { color: var(--bad); } small { color: var(--soft); }
.wide { overflow-x: auto; } table.text { min-width: 44rem; table-layout: fixed; }
span.time { white-space: nowrap; }
svg { display: block; max-width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
"""


def page_of(report: Report) -> str:
    """Return the report as HTML."""
    seconds = sum(step.seconds for step in report.steps)
    cost = f", {money(report.counts['dollars'])}" if report.counts.get("dollars") else ""
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p>Preset {escape(report.preset)}: {report.how_far}"
        f"{f'; {span(seconds)} of work' if seconds else ''}{cost}.</p>",
        *(part for section in report.sections for part in _section(section)),
        "<h2>Steps</h2>", _table(_HEAD, [_row(step) for step in report.steps]),
    ]  # fmt: skip
    if report.counts:
        rows = [[escape(name.replace("_", " ")), count_text(name, value)] for name, value in report.counts.items()]
        parts += ["<h2>Tokens and money</h2>", _table(["", ""], rows)]
    rows = [[escape(key), escape(str(value)), f"<small>{escape(report.files.get(key, ''))}</small>"]
            for key, value in report.settings.items()]  # fmt: skip
    parts += ["<h2>Settings</h2>", _table(["", "", ""], rows)]
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>'
            f"{''.join(parts)}</body></html>\n")  # fmt: skip


def _section(section: SectionContent) -> list[str]:
    parts = [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.text)}</p>" if section.text else ""]
    parts += [_bars(section.bars)] if section.bars else []
    parts += [_picture(curve) for curve in section.curves]
    if section.rows:
        rows = [[escape(cell).replace("\n", "<br>") for cell in row] for row in section.rows]
        parts.append(_table(list(map(escape, section.heads)), rows, is_text=any(len(cell) > 40 for cell in rows[0])))
    return [*parts, f"<p>And {section.more:,} more.</p>" if section.more else ""]


def _bars(bars: tuple[Bar, ...]) -> str:
    """Draw bars from 0, with a line over the numbers that each may lie between."""
    high = max(max(bar.value, bar.interval[1] if bar.interval else bar.value) for bar in bars) or 1.0
    tall = _BAR * len(bars) + 8
    drawn = []
    for place, bar in enumerate(bars):
        top = place * _BAR + 22
        wide = _WIDTH * 0.88 * max(bar.value, 0.0) / high
        drawn.append(f'<text x="0" y="{top - 6}">{escape(bar.name)}</text>'
                     f'<rect x="0" y="{top}" width="{wide:.1f}" height="14" rx="2" fill="var(--accent)" opacity=".55"/>'
                     f'<text x="{_WIDTH}" y="{top + 12}" text-anchor="end">{bar.value:.3g}</text>')  # fmt: skip
        if bar.interval:
            first, last = (_WIDTH * 0.88 * max(end, 0.0) / high for end in bar.interval)
            drawn.append(f'<path d="M{first:.1f} {top + 7}H{last:.1f}M{first:.1f} {top + 3}v8M{last:.1f} {top + 3}v8" '
                         'stroke="var(--ink)" fill="none"/>')  # fmt: skip
    return f'<svg viewBox="0 0 {_WIDTH} {tall}" role="img">{"".join(drawn)}</svg>'


def _row(step: StepReport) -> list[str]:
    told = "<br>".join(map(escape, step.checks)) or f"<small>{escape(step.note)}</small>"
    runs = f" <small>in {step.runs} runs</small>" if step.runs > 1 else ""
    time = span(step.seconds) if step.seconds else ""
    return [
        str(step.number),
        f"{escape(step.title)}{runs}",
        f'<span class="{step.state}">{step.state}</span>',
        f"<span class=time>{time}</span>",
        told,
    ]


def _table(names: list[str], rows: list[list[str]], is_text: bool = False) -> str:
    head = "".join(f"<th>{name}</th>" for name in names) if any(names) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    kind = ' class="text"' if is_text and names else ""
    return f"<div class=wide><table{kind}>{f'<tr>{head}</tr>' if head else ''}{body}</table></div>"


def _picture(curve: Curve) -> str:
    """Draw a curve; its axis is logarithmic where it falls far."""
    finite = [value for value in curve.values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    size = -(-len(finite) // _MOST)
    points = [
        sum(finite[place : place + size]) / len(finite[place : place + size]) for place in range(0, len(finite), size)
    ]
    low, high = min(points), max(points)
    is_log = low > 0 and high / low > 20
    scaled = [math.log(value) if is_log else value for value in points]
    bottom, top = min(scaled), max(scaled)
    wide, tall = _WIDTH - _EDGE - 10, _HEIGHT - 40
    heights = [10 + tall * (1 - (value - bottom) / (top - bottom or 1)) for value in scaled]
    across = wide / max(len(scaled) - 1, 1)
    places = " ".join(f"{_EDGE + across * place:.1f},{height:.1f}" for place, height in enumerate(heights))
    grid = []
    for share in (0.0, 0.5, 1.0):
        value = bottom + share * (top - bottom)
        named, height = math.exp(value) if is_log else value, 10 + tall * (1 - share)
        grid.append(f'<line x1="{_EDGE}" x2="{_WIDTH - 10}" y1="{height:.1f}" y2="{height:.1f}" stroke="var(--line)"/>'
                    f'<text x="{_EDGE - 6}" y="{height + 4:.1f}" text-anchor="end">{named:.3g}</text>')  # fmt: skip
    axis = f'<text x="{_EDGE}" y="{_HEIGHT - 8}">1</text><text x="{_WIDTH - 10}" y="{_HEIGHT - 8}" text-anchor="end">' \
           f"{len(finite):,} rows</text>"  # fmt: skip
    line = f'<polyline points="{places}" fill="none" stroke="var(--accent)" stroke-width="1.8"/>'
    title = escape(f"{curve.field} of {curve.file}{', logarithmic' if is_log else ''}")
    return (f'<p>{title}</p><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
            f"{''.join(grid)}{axis}{line}</svg>")  # fmt: skip
