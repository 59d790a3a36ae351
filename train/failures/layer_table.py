"""The tables of a replay: layers and gradients, aligned, at most 110 characters wide."""

import textwrap
from collections.abc import Sequence

from train.failures.measure import Measure
from train.failures.probe import Probe
from train.failures.watch import LayerCall

WIDTH = 110
_NAME, _KIND, _NUMBER = 44, 22, 9  # at most
_MARK = "  <- first"
_MANY = 60  # layers of a table that is shown whole
_AROUND = 6  # of the bad layer, where it isn't
_GRADIENTS = 12


def layer_lines(calls: Sequence[LayerCall], first: LayerCall | None) -> list[str]:
    """Write a line for each call of a module, in the order in which their outputs came to be.

    Args:
        calls: calls of modules. Of more than sixty, only modules without others inside are shown, around the bad one.
        first: the first bad call, which is marked; None where there is none.
    """
    head = ("layer", "type", "norm", "max", "output")
    if len(calls) <= _MANY:
        return _table(head, [(call is first, _call_cells(call)) for call in calls])
    shown = [call for call in calls if call.leaf or call is first]
    bad = next((number for number, call in enumerate(shown) if call is first), len(shown) - 1)
    start, end = max(bad - _AROUND, 0), min(bad + _AROUND + 1, len(shown))
    title, *rows = _table(head, [(call is first, _call_cells(call)) for call in shown[start:end]])
    return [title, *_folded("layers", shown[:start]), *rows, *_folded("layers", shown[end:])]


def gradient_lines(probe: Probe) -> list[str]:
    """Write the gradients of the largest norm, those first that are not finite."""
    known = probe.gradients
    if not known:
        return ["gradients: none, since the loss is not finite" if probe.loss_is_bad else "gradients: none"]
    names = sorted(known, key=lambda name: (known[name].finite, -known[name].norm if known[name].finite else 0.0))
    rows = [(not known[name].finite, (name, "", *_numbers(known[name]))) for name in names]
    lines = ["", *_table(("gradient of", "", "norm", "max", "values"), rows[:_GRADIENTS], mark="")]
    if len(names) > _GRADIENTS:
        bad = sum(not known[name].finite for name in names[_GRADIENTS:])
        lines.append(_fold_line("parameters", len(names) - _GRADIENTS, bad))
    return [*lines, f"norm of the whole gradient: {probe.gradient_norm:.4g}"]


def _folded(what: str, calls: Sequence[LayerCall]) -> list[str]:
    bad = sum(call.output is not None and not call.output.finite for call in calls)
    return [_fold_line(what, len(calls), bad)] if calls else []


def _fold_line(what: str, count: int, bad: int) -> str:
    return f"  ... {count} {what}, " + ("all finite" if not bad else f"{bad} not finite")


def _call_cells(call: LayerCall) -> tuple[str, ...]:
    numbers = ("", "", "no floating-point output") if call.output is None else _numbers(call.output)
    return (call.name, call.kind, *numbers)


def _numbers(seen: Measure) -> tuple[str, str, str]:
    return f"{seen.norm:.3g}", f"{seen.largest:.3g}", seen.describe()


def _table(head: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]], mark: str = _MARK) -> list[str]:
    """Align rows under a head. A row that is marked has `>` before it, and `mark` behind it where there is room."""
    name, kind = (min(max(len(cells[column]) for _, cells in [(False, head), *rows]), most)
                  for column, most in ((0, _NAME), (1, _KIND)))  # fmt: skip
    lines = []
    for marked, cells in [(False, head), *rows]:
        first = f"{'>' if marked else ' '} {shortened(cells[0], name):<{name}}"
        second = f" {shortened(cells[1], kind):<{kind}}" if kind else ""
        line = f"{first}{second} {cells[2]:>{_NUMBER}} {cells[3]:>{_NUMBER}}  {cells[4]}".rstrip()
        lines.append(f"{line}{mark}" if marked and len(line) + len(mark) <= WIDTH else line[:WIDTH])
    return lines


def shortened(name: str, width: int) -> str:
    """Leave out a long name's middle: its ends tell most.

    Args:
        name: name of a layer or parameter.
        width: largest number of characters.
    """
    if len(name) <= width:
        return name
    head = (width - 3) // 2
    return f"{name[:head]}...{name[len(name) - (width - 3 - head) :]}"


def wrapped(head: str, text: str) -> list[str]:
    """Break a sentence into lines, those after the first indented as far as the text of the first."""
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
