"""What a report says of a run that failed: the error, and what `failure/report.json` found out about the bad step."""

import json
from pathlib import Path
from typing import Any

from constants import command
from evaluation.report.markup import Markup, details, joined, table, tag
from evaluation.report.parts import lines, number

_GRADIENTS = 20  # that are shown


def failure_part(run: Path, error: Any) -> Markup | None:
    """Show why a run failed.

    Args:
        run: folder of the run.
        error: entry `error` of metrics.json; None where it has none.

    Returns:
        What to show; None where nothing went wrong.
    """
    parts = [lines(str(error).splitlines())] if error else []
    file = run / "failure" / "report.json"
    if file.exists():
        try:
            parts += _found(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            parts.append(tag("p", f"cannot read {file}: {problem}", class_="bad"))
    return joined(parts) if parts else None


def _found(report: dict[str, Any]) -> list[Markup]:
    facts = {
        "in": "training" if report["split"] == "train" else "validation", "epoch": report["epoch"],
        "step of the epoch": report.get("step_of_epoch"), "step of the run": report["step"],
        "cause": report["finding"]["kind"], "first bad layer": report.get("first_bad_layer"),
        "losses of its batches": ", ".join(map(number, report.get("losses") or [])),
        "norm of the gradient": report.get("gradient_norm"), "learning rate": report.get("learning_rate"),
        "precision": report.get("precision"),
    }  # fmt: skip
    rows = [(name, number(value)) for name, value in facts.items() if value not in (None, "")]
    parts = [table(("fact", "value"), rows, "The step at which numbers went wrong")]
    layers = report.get("layers") or []
    bad = [row for row, layer in enumerate(layers) if not (layer.get("output") or {"finite": True})["finite"]]
    head = ("layer", "type", "norm of its output", "largest", "values")
    cells = [(layer["name"], layer["type"], *_numbers(layer.get("output"))) for layer in layers]
    if cells:
        parts.append(details(f"Layers ({len(cells)})", table(head, cells, "Outputs of the step's layers", bad)))
    gradients = (report.get("gradients") or [])[:_GRADIENTS]
    if gradients:
        cells = [(gradient["name"], *_numbers(gradient)) for gradient in gradients]
        bad = [row for row, gradient in enumerate(gradients) if not gradient["finite"]]
        inside = table(("parameter", "norm", "largest", "values"), cells, "Gradients of the largest norm", bad)
        parts.append(details(f"Gradients ({len(cells)})", inside))
    return [*parts, tag("p", f"{command('train')} --replay repeats the step, layer by layer.", class_="faint")]


def _numbers(measure: dict[str, Any] | None) -> tuple[str, str, str]:
    if measure is None:
        return ("", "", "no floating-point output")
    return (number(measure.get("norm"), 4), number(measure.get("max"), 4), str(measure.get("values", "")))
