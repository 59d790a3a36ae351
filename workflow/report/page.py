"""A report as one page, which needs no other file and no network."""

import math
from html import escape

from constants.time_spans import span
from workflow.report.content import Curve, Report, StepReport

_WIDTH, _HEIGHT, _EDGE = 640, 200, 44
_HEAD = ["", "step", "state", "time", "what was checked"]
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
  overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.done { color: var(--good); } .failed, .stale { color: var(--bad); } small { color: var(--soft); }
svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
"""


def page_of(report: Report) -> str:
    """Return the report as HTML."""
    done = sum(step.state == "done" for step in report.steps)
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p>Preset {escape(report.preset)}: {done} of {len(report.steps)} steps done.</p>",
        "<h2>Steps</h2>", _table(_HEAD, [_row(step) for step in report.steps]),
        *(_picture(curve) for curve in report.curves),
    ]  # fmt: skip
    if report.counts:
        rows = [[escape(name.replace("_", " ")), _count(name, value)] for name, value in report.counts.items()]
        parts += ["<h2>Tokens and money</h2>", _table(["", ""], rows)]
    if report.samples:
        names = list(report.samples[0])
        rows = [[escape(row.get(name, "")) for name in names] for row in report.samples]
        parts += ["<h2>Samples</h2>", _table(names, rows)]
    rows = [[escape(key), escape(str(value))] for key, value in report.settings.items()]
    parts += ["<h2>Settings</h2>", _table(["", ""], rows)]
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>'
            f"{''.join(parts)}</body></html>\n")  # fmt: skip


def _row(step: StepReport) -> list[str]:
    told = "<br>".join(map(escape, step.checks)) or f"<small>{escape(step.note)}</small>"
    runs = f" <small>in {step.runs} runs</small>" if step.runs > 1 else ""
    time = span(step.seconds) if step.seconds else ""
    return [
        str(step.number),
        f"{escape(step.title)}{runs}",
        f'<span class="{step.state}">{step.state}</span>',
        time,
        told,
    ]


def _table(names: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names) if any(names) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _count(name: str, value: float) -> str:
    return f"${value:,.2f}" if name == "dollars" else f"{value:,.0f}"


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
    return (f'<h2>{title}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
            f"{''.join(grid)}{axis}{line}</svg>")  # fmt: skip
