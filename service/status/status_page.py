"""The status page: one HTML page without scripts, drawn anew every few seconds by the browser itself."""

import time
from collections.abc import Iterable, Sequence
from html import escape

from constants.counting import counted
from service.status.overview import ModelRow, Overview
from service.web.front import OWN_PAGES, READY

_REFRESH = 5  # seconds
_MOST_ROWS = 50
_WIDE, _HIGH = 360.0, 56.0  # of the curve
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6576; --line: #dfe3ea; --back: #f6f7f9; --card: #fff;
  --sampled: #2563c9; --trained: #b4551d; --good: #1f7a4d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #2f3745; --back: #12161d;
  --card: #1a2029; --sampled: #7db1ff; --trained: #f0a271; --good: #6fcf9b; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 3rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
header { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: baseline; }
p { margin: .3rem 0; } .soft, th, dt { color: var(--soft); }
.state { font-weight: 600; color: var(--good); } .state.bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; margin: 0; }
.card dt { font-size: .85rem; } .card dd { margin: 0; } .card .big { font-size: 1.5rem; font-weight: 600; }
.card dd { font-variant-numeric: tabular-nums; }
.plot { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.plot svg { width: 100%; height: 5rem; display: block; }
.key { font-size: .85rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.key i { display: inline-block; width: .8rem; height: .2rem; margin-right: .35rem; vertical-align: middle; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem; border-top: 1px solid var(--line); vertical-align: top; }
tr:first-child th { border-top: 0; font-weight: 500; font-size: .85rem; }
td.number, th.number { text-align: right; white-space: nowrap; } td.time { white-space: nowrap; }
td.name, code { font-family: ui-monospace, monospace; font-size: .88em; overflow-wrap: anywhere; }
td.name { min-width: 12rem; } td.text { min-width: 14rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  th, td { padding: .35rem .5rem; } .scroll { font-size: .9rem; } td.name { min-width: 9rem; }
  .told, .told tbody, .told tr { display: block; } .told tr:first-child { display: none; }
  .told tr { border-top: 1px solid var(--line); padding: .3rem 0; } .told tr:nth-child(2) { border-top: 0; }
  .told td { display: inline-block; border: 0; padding: .1rem .5rem; min-width: 0; } .told td.text { display: block; }
}
.none { padding: .6rem .9rem; margin: 0; }
footer { margin-top: 2rem; font-size: .85rem; } a { color: inherit; }
"""


def status_page(now: Overview) -> str:
    """Write the page."""
    state = now.state + (f": {now.failure}" if now.failure else "")
    good = "" if now.state == READY else " bad"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{_REFRESH}">
<title>{escape(now.name)} · {escape(now.state)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(now.name)}</h1><span class="state{good}">{escape(state)}</span>
<span class="soft">for {_duration(time.time() - now.started)}</span></header>
{_trouble(now)}<p class="soft">{_model(now)}</p>
<p class="soft">Tinker: <code>{escape(now.url)}</code> &ensp; OpenAI: <code>{escape(now.url)}/v1</code></p>
<dl class="cards">{"".join(_cards(now))}</dl>
{_plot(now)}
<h2>Models that are trained</h2>
{_models(now)}
{_aliases(now)}
<h2>Newest errors</h2>
{_errors(now)}
<h2>Requests</h2>
{_requests(now)}
<footer class="soft">Menagerie {escape(now.version)} · <a href="/metrics">metrics</a> · <a href="/healthz">health</a>
· this page is drawn anew every {_REFRESH} seconds · {_clock(time.time())}</footer>
</body>
</html>
"""


def _trouble(now: Overview) -> str:
    if not now.trouble:
        return ""
    told = f"{now.trouble[:1].upper()}{now.trouble[1:]}: no request is taken, and what is done waits to be kept"
    return f'<p class="state bad">{escape(told)}</p>\n'


def _model(now: Overview) -> str:
    source = "" if now.source == now.name else f"from {escape(now.source)} · "
    parts = f"{_count(now.parameters)} parameters · context {now.context:,} tokens · {escape(now.place)}"
    return source + parts


def _cards(now: Overview) -> Iterable[str]:
    sampled, trained = now.rates.now()
    process = now.process
    disk = f"of {_bytes(now.checkpoint_bytes_most)}" if now.checkpoint_bytes_most else "no limit"
    loaded = sum(row.steps is not None for row in now.rows)
    waiting = now.waiting_sampling + now.waiting_training
    yield _card("sampled", f"{sampled:,.0f}", f"tokens/s · {_count(now.sampled_tokens)} in all")
    yield _card("trained on", f"{trained:,.0f}", f"tokens/s · {_count(now.trained_tokens)} in all")
    kinds = f"{now.waiting_sampling:,} to sample, {now.waiting_training:,} to train" if waiting else "nothing waits"
    yield _card("queue", f"{waiting:,}", f"{kinds} · {now.sampling:,} sampled now")
    memory = f"of {_bytes(process.memory_total)} · {process.threads} threads, {process.files} files"
    yield _card("memory", _bytes(process.memory), memory)
    yield _card("models", f"{loaded:,}", f"of {now.adapters_most:,} · {counted(now.sessions, 'session')}")
    yield _card("checkpoints", f"{now.checkpoints:,}", f"{_bytes(now.checkpoint_bytes)} {disk}")


def _card(name: str, big: str, small: str) -> str:
    return f'<div class="card"><dt>{name}</dt><dd class="big">{big}</dd><dd class="soft">{small}</dd></div>\n'


def _plot(now: Overview) -> str:
    history = now.rates.history()
    lines = []
    keys = []
    for kind, name in ((0, "sampled"), (1, "trained")):
        values = [rates[kind] for rates in history]
        most = max(values)
        if most:
            lines.append(f'<polyline fill="none" stroke="var(--{name})" stroke-width="1.5" '
                         f'vector-effect="non-scaling-stroke" points="{_points(values, most)}"/>')  # fmt: skip
        told = f"at most {most:,.0f}" if most else "none"
        word = "trained on" if kind else "sampled"
        keys.append(f'<span><i style="background:var(--{name})"></i>{word}, {told}</span>')
    line = f'<line x1="0" x2="{_WIDE:g}" y1="{_HIGH - 0.5:g}" y2="{_HIGH - 0.5:g}" stroke="var(--line)"/>'
    return f"""<div class="plot">
<p class="key"><span class="soft">tokens/s, last 10 minutes, each to its own scale</span>{"".join(keys)}</p>
<svg viewBox="0 0 {_WIDE:g} {_HIGH:g}" preserveAspectRatio="none" role="img" aria-label="tokens a second">
{line}{"".join(lines)}</svg></div>"""


def _points(values: Sequence[float], most: float) -> str:
    step = _WIDE / (len(values) - 1)
    return " ".join(f"{place * step:.1f},{_HIGH - 1 - value / most * (_HIGH - 4):.1f}"
                    for place, value in enumerate(values))  # fmt: skip


def _models(now: Overview) -> str:
    if not now.rows:
        return _none("None yet.")
    head = '<th>id</th><th class="number">rank</th><th class="number">steps</th><th>last asked</th>'
    head += '<th class="number">checkpoints</th>'
    return _table(head, [_model_row(row) for row in now.rows[:_MOST_ROWS]], len(now.rows))


def _model_row(row: ModelRow) -> str:
    steps = "unloaded" if row.steps is None else f"{row.steps:,}"
    kept = f"{row.checkpoints:,} ({_bytes(row.bytes)})" if row.checkpoints else "0"
    return (f'<td class="name">{escape(row.id)}</td><td class="number">{row.rank}</td><td class="number">{steps}</td>'
            f'<td class="time">{_ago(row.last)}</td><td class="number">{kept}</td>')  # fmt: skip


def _aliases(now: Overview) -> str:
    if not now.aliases:
        return ""
    rows = [f'<td class="name">{escape(name)}</td><td class="name">{escape(target)}</td>'
            for name, target in now.aliases.items()]  # fmt: skip
    return f"<h2>Aliases</h2>\n{_table('<th>name</th><th>stands for</th>', rows, len(rows))}"


def _errors(now: Overview) -> str:
    errors = list(reversed(now.counts.errors))
    if not errors:
        return _none("None.")
    head = "<th>when</th><th>request</th><th>status</th><th>what was said</th>"
    rows = [
        f'<td class="time">{_ago(each.time)}</td><td class="name">{escape(each.request)}</td>'
        f"<td>{each.status if each.status >= 400 else 'failed'}</td>"
        f'<td class="text">{escape(_short(each.text))}</td>'
        for each in errors
    ]
    return _table(head, rows, len(rows), "told")


def _requests(now: Overview) -> str:
    totals: dict[str, tuple[int, int]] = {}
    for (route, _, status), count in now.counts.requests.items():
        if route in OWN_PAGES:
            continue
        every, bad = totals.get(route, (0, 0))
        totals[route] = every + count, bad + (count if status >= 400 and status != 408 else 0)
    if not totals:
        return _none("None yet.")
    head = '<th>route</th><th class="number">requests</th><th class="number">errors</th>'
    head += '<th class="number">mean time</th>'
    rows = []
    for route, (every, bad) in sorted(totals.items(), key=lambda item: -item[1][0]):
        mean = now.counts.durations[route].seconds / every
        rows.append(f'<td class="name">{escape(route)}</td><td class="number">{every:,}</td>'
                    f'<td class="number">{bad:,}</td><td class="number">{_seconds(mean)}</td>')  # fmt: skip
    return _table(head, rows, len(rows))


def _table(head: str, rows: Sequence[str], total: int, kind: str = "") -> str:
    more = _none(f"and {total - len(rows):,} more") if total > len(rows) else ""
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>\n{body}</table>{more}</div>'


def _none(text: str) -> str:
    return f'<p class="none soft">{text}</p>'


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _count(number: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _bytes(number: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g} bytes"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if whole >= size:
            return f"{whole // size} {name}{'s' if whole >= 2 * size else ''}"
    return f"{whole} second{'' if whole == 1 else 's'}"


def _ago(moment: float) -> str:
    return f"{_duration(time.time() - moment)} ago"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
