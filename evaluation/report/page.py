"""The page around a report: its head, its looks, and the rule that nothing of it may run or be fetched."""

import base64
import hashlib
import time
from collections.abc import Mapping

from constants import command
from evaluation.report.markup import Markup, tag

_CSS = """
:root { color-scheme: light dark; --back: #fff; --card: #f5f7f9; --ink: #1c2330; --faint: #5a6573; --line: #d8dee5;
  --link: #0b5c9c; --good: #1a7038; --bad: #b3261e; --warn: #855600; --mark: #fff6d6; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --card: #1c2229; --ink: #e3e8ee; --faint: #9da9b7;
  --line: #323a44; --link: #74b8f0; --good: #7bd48f; --bad: #ff8f85; --warn: #f0c04c; --mark: #38321c; }
  .lines svg { filter: brightness(1.25); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 3rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: .4rem 0 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .7rem; font-size: 1.2rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; }
a { color: var(--link); }
p { margin: .35rem 0; overflow-wrap: anywhere; }
code, pre { font: .85rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .4rem 0; padding: .7rem .9rem; overflow: auto; max-height: 32rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .4rem; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll pre { max-height: 14rem; }
.scroll:has(pre) { max-height: none; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0 0; padding: 0; list-style: none; }
.verdict { font-size: 1.1rem; }
.faint, figcaption, caption { color: var(--faint); font-size: .9rem; }
.whole, .state { white-space: nowrap; }
.state { display: inline-block; padding: .05rem .6rem; border: 1px solid; border-radius: 1rem; font-size: .9rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: .7rem; margin: 1rem 0 0; }
.tiles div { padding: .6rem .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .4rem; }
.tiles dt { color: var(--faint); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tiles small { display: block; color: var(--faint); font-size: .8rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(25rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0 0 1rem; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
.wide > div { overflow-x: auto; } .wide svg { min-width: 42rem; }
.scroll { overflow: auto; width: fit-content; max-width: 100%; max-height: 34rem; margin: .4rem 0;
  border: 1px solid var(--line); border-radius: .4rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; margin: .6rem 0; }
.images img { display: block; max-width: 100%; height: auto; border-radius: .3rem; background: var(--card); }
.images figure { margin: 0; overflow-wrap: anywhere; }
.bars td, .bars th { white-space: nowrap; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding: .35rem .7rem; }
th, td { padding: .25rem .7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--card); border-top: 0; white-space: nowrap; }
tbody th { position: sticky; left: 0; z-index: 1; background: var(--back); font-weight: 500; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.marked > *, tbody .marked th { background: var(--mark); }
.transcript { margin: .7rem 0; padding: .5rem .9rem .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; break-inside: avoid; }
.transcript h4 { margin: 0 0 .3rem; font-size: .95rem; }
.said-row { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto; color: var(--faint);
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.said-row + .said-row { border-top: 1px dashed var(--line); padding-top: .35rem; }
.said { color: var(--ink); background: none; border-bottom: 2px solid var(--line); border-radius: .15rem; }
.up1, .up2, .up3 { border-bottom-color: var(--good); } .down1, .down2, .down3 { border-bottom: 2px dotted var(--bad); }
.up1 { background: color-mix(in srgb, var(--good) 12%, transparent); }
.up2 { background: color-mix(in srgb, var(--good) 22%, transparent); }
.up3 { background: color-mix(in srgb, var(--good) 34%, transparent); }
.down1 { background: color-mix(in srgb, var(--bad) 12%, transparent); }
.down2 { background: color-mix(in srgb, var(--bad) 22%, transparent); }
.down3 { background: color-mix(in srgb, var(--bad) 34%, transparent); }
summary { cursor: pointer; padding: .3rem 0; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); }
h2, h3 { break-after: avoid; }
@media print { nav { display: none; } body { max-width: none; padding: 0; font-size: 10pt; }
  .plots { grid-template-columns: 1fr 1fr; } .wide svg { min-width: 0; } th { position: static !important; }
  .scroll, pre { max-height: none; overflow: visible; } pre { white-space: pre-wrap; overflow-wrap: anywhere; } }
"""


def page(
    title: str, head: Markup, parts: Mapping[str, tuple[str, Markup | None]], made: str, by: str | None = None
) -> str:
    """Put a page together.

    Args:
        title: title of the window.
        head: content above all sections.
        parts: title and content of each section, by the section's id; one without content is left out.
        made: text that says from what the page was made.
        by: command that has made it; None for plot.py's.

    Returns:
        The whole file.
    """
    # Only this style sheet, known by its digest, and pictures that are in the page: no script, no address, no form.
    digest = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    top = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(_CSS)),
    )
    there = {place: (name, body) for place, (name, body) in parts.items() if body}
    links = [tag("li", tag("a", name, href=f"#{place}")) for place, (name, _) in there.items()]
    sections = [
        tag("section", tag("h2", name, id=f"{place}-title"), body, id=place, aria_labelledby=f"{place}-title")
        for place, (name, body) in there.items()
    ]
    body = tag(
        "body",
        tag("header", head, tag("nav", tag("ul", *links), aria_label="Contents")),
        tag("main", *sections),
        tag("footer", tag("p", f"{made} by {by or command('plot') + ' --report'} on {time.strftime('%Y-%m-%d %H:%M')}.",
                          class_="faint")),
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', top, body, lang='en')}\n"
