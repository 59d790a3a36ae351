"""A report as Markdown."""

from constants.time_spans import span
from workflow.estimates.spending import money
from workflow.report.content import Report
from workflow.report.sections import Bar, SectionContent


def markdown_of(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [f"# {report.title}", "", f"Preset `{report.preset}`: {report.how_far}."]
    for section in report.sections:
        lines += ["", f"## {section.title}", *_section(section)]
    lines += ["", "## Steps", "", "| step | | state | time | runs | what was checked |", "|---|---|---|---|---|---|"]
    for step in report.steps:
        told = "<br>".join(map(_cell, step.checks)) or _cell(step.note)
        time = span(step.seconds) if step.seconds else ""
        lines.append(f"| {step.number} | {_cell(step.title)} | {step.state} | {time} | {step.runs or ''} | {told} |")
    if report.counts:
        lines += ["", "## Tokens and money", "", "| | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {count_text(name, value)} |" for name, value in report.counts.items()]
    lines += ["", "## Settings", "", "| setting | value | file |", "|---|---|---|"]
    lines += [f"| {key} | {_cell(value)} | {report.files.get(key, '')} |" for key, value in report.settings.items()]
    return "\n".join([*lines, ""])


def _section(section: SectionContent) -> list[str]:
    lines = ["", section.text] if section.text else []
    if section.bars and not section.rows:
        lines += ["", *(f"- {bar.name}: {bar.value:.4g}{_between(bar)}" for bar in section.bars)]
    for curve in section.curves:
        first, last = curve.values[0], curve.values[-1]
        told = f"{curve.field} from {first:.4g} to {last:.4g}, lowest {min(curve.values):.4g}"
        lines += ["", f"`{curve.file}`: {told}, in {len(curve.values):,} rows."]
    if section.rows:
        wide = len(section.rows[0])
        heads = section.heads or ("",) * wide
        lines += ["", f"| {' | '.join(map(_cell, heads))} |", f"|{'---|' * wide}"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in section.rows]
    return [*lines, *(["", f"And {section.more:,} more."] if section.more else [])]


def _between(bar: Bar) -> str:
    return f" ({bar.interval[0]:.4g} to {bar.interval[1]:.4g})" if bar.interval else ""


def count_text(name: str, value: float) -> str:
    """Write a sum of tokens or dollars."""
    return money(value) if name == "dollars" else f"{value:,.0f}"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", "<br>")
