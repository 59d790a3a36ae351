"""Pictures of a run as SVG in the page: the graph with its live node, and the curves of a training."""

import math
from collections.abc import Mapping, Sequence
from html import escape

# Where each node stands: column and row.
_PLACES = {
    "baseline": (1, 0), "orchestrate": (1, 1), "export": (2, 0), "ask_change": (2, 1), "apply_change": (3, 1),
    "ask_training": (4, 1), "train_first": (4, 2), "ask_half_way": (3, 2), "train_rest": (2, 2), "evaluate": (1, 2),
    "ask_evaluation": (0, 2), "debug": (0, 1), "retrieve": (3, 0), "generate": (4, 0),
    "ask_judge": (0, 0),
}  # fmt: skip
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 132, 40, 34, 34, 8
_NAMES = {
    "baseline": "base model", "orchestrate": "orchestrator", "export": "export", "ask_change": "ask: change",
    "apply_change": "change", "ask_training": "ask: training", "train_first": "train", "ask_half_way": "ask: half way",
    "train_rest": "train on", "evaluate": "evaluate", "ask_evaluation": "ask: result", "debug": "debugger",
    "ask_judge": "judge", "check_judge": "judge", "retrieve": "documents", "generate": "make rows",
}  # fmt: skip


def node_name(node: str) -> str:
    """Return what the picture calls a node; of what is none, its own name."""
    return _NAMES.get(node, node.replace("_", " "))


def graph_picture(edges: Sequence[tuple[str, str]], live: str, asked: bool) -> str:
    """Draw the graph.

    Args:
        edges: arrows between nodes.
        live: name of the node that runs or waits; "" for none.
        asked: whether it waits for a person.
    """
    columns = 1 + max(column for column, _ in _PLACES.values())
    rows = 1 + max(row for _, row in _PLACES.values())
    wide = columns * _WIDTH + (columns - 1) * _GAP_X + 2 * _EDGE
    high = rows * _HEIGHT + (rows - 1) * _GAP_Y + 2 * _EDGE
    parts = [_arrow(first, second) for first, second in edges if first in _PLACES and second in _PLACES]
    for name in _PLACES:
        x, y = _corner(name)
        kind = " asked" if name == live and asked else " live" if name == live else ""
        parts.append(
            f'<g class="node{kind}"><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
            f'<text x="{x + _WIDTH / 2}" y="{y + _HEIGHT / 2 + 4.5}" text-anchor="middle">{escape(_NAMES[name])}</text>'
            "</g>"
        )
    told = f"The graph of agents; now: {_NAMES.get(live, 'nothing')}"
    return (
        f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(told)}" class="graph">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/>'
        f"</marker></defs>{''.join(parts)}</svg>"
    )


def _corner(name: str) -> tuple[int, int]:
    column, row = _PLACES[name]
    return _EDGE + column * (_WIDTH + _GAP_X), _EDGE + row * (_HEIGHT + _GAP_Y)


def _arrow(first: str, second: str) -> str:
    """Draw an arrow from the border of one node to the border of another."""
    (x, y), (u, v) = _corner(first), _corner(second)
    begin, end = (x + _WIDTH / 2, y + _HEIGHT / 2), (u + _WIDTH / 2, v + _HEIGHT / 2)
    across, down = end[0] - begin[0], end[1] - begin[1]
    reach = min(_WIDTH / 2 / abs(across) if across else 9, _HEIGHT / 2 / abs(down) if down else 9)
    points = (begin[0] + across * reach, begin[1] + down * reach, end[0] - across * reach, end[1] - down * reach)
    one, two, three, four = (round(value, 1) for value in points)
    return f'<path class="arrow" d="M{one} {two}L{three} {four}" marker-end="url(#head)"/>'


_PLOT_WIDE, _PLOT_HIGH, _LEFT, _BOTTOM = 420, 150, 46, 22
_SHOWN = ("train_loss", "val_loss")


def curves_picture(history: Mapping[str, Sequence[float | None]], label: str) -> str:
    """Draw the losses of a training, epoch by epoch; "" where there are none.

    Args:
        history: by name the numbers of each epoch.
        label: what the picture shows, for those who can't see it.
    """
    lines = {name: [(epoch, value) for epoch, value in enumerate(history.get(name, ()), 1)
                    if value is not None and math.isfinite(value)] for name in _SHOWN}  # fmt: skip
    values = [value for line in lines.values() for _, value in line]
    if not values:
        return ""
    last = max(epoch for line in lines.values() for epoch, _ in line)
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - 1) / max(1, last - 1) * (_PLOT_WIDE - _LEFT - 12), 1)

    def y(value: float) -> float:
        return round(8 + (high - value) / (high - low) * (_PLOT_HIGH - _BOTTOM - 16), 1)

    parts = [f'<path class="axis" d="M{_LEFT} 4V{_PLOT_HIGH - _BOTTOM}H{_PLOT_WIDE - 4}"/>']
    for value in (high, low):
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{value:.3g}</text>')
    for epoch in sorted({1, last}):
        parts.append(f'<text x="{x(epoch)}" y="{_PLOT_HIGH - 6}" text-anchor="middle">{epoch}</text>')
    for name, line in lines.items():
        points = " ".join(f"{x(epoch)},{y(value)}" for epoch, value in line)
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        parts += [f'<circle class="{name}" cx="{x(epoch)}" cy="{y(value)}" r="2.5"><title>epoch {epoch}: {name} '
                  f"{value:.4g}</title></circle>" for epoch, value in line if len(line) <= 40]  # fmt: skip
    head = f'<svg viewBox="0 0 {_PLOT_WIDE} {_PLOT_HIGH}" role="img" aria-label="{escape(label)}" class="curves">'
    return f"{head}{''.join(parts)}</svg>"
