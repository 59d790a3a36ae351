"""A report as Markdown."""

from constants.time_spans import span
from workflow.report.content import Report


def markdown_of(report: Report) -> str:
    """Return the report as Markdown."""
    done = sum(step.state == "done" for step in report.steps)
    lines = [f"# {report.title}", "", f"Preset `{report.preset}`: {done} of {len(report.steps)} steps done.", ""]
    lines += [
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in report.settings.items()),
    ]
    lines += ["", "## Steps", "", "| step | | state | time | runs | what was checked |", "|---|---|---|---|---|---|"]
    for step in report.steps:
        told = "<br>".join(map(_cell, step.checks)) or _cell(step.note)
        time = span(step.seconds) if step.seconds else ""
        lines.append(f"| {step.number} | {_cell(step.title)} | {step.state} | {time} | {step.runs or ''} | {told} |")
    if report.counts:
        lines += ["", "## Tokens and money", "", "| | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value:,.2f} |" if name == "dollars" else
                  f"| {name.replace('_', ' ')} | {value:,.0f} |" for name, value in report.counts.items()]  # fmt: skip
    for curve in report.curves:
        first, last = curve.values[0], curve.values[-1]
        told = f"`{curve.file}`: {curve.field} from {first:.4g} to {last:.4g}, lowest {min(curve.values):.4g}"
        lines += ["", f"{told}, in {len(curve.values):,} rows."]
    if report.samples:
        names = list(report.samples[0])
        lines += ["", "## Samples", "", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        lines += [f"| {' | '.join(_cell(row.get(name, '')) for name in names)} |" for row in report.samples]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", "<br>")
