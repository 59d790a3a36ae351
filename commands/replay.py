"""`--replay`: the step at which a run's numbers went wrong, repeated and shown layer by layer."""

from typing import Any

from storage.failed_runs import ReplayError
from train.context import RunContext
from train.failures.batch_check import listed
from train.failures.files import SavedFailure
from train.failures.finding import suggestions
from train.failures.layer_table import gradient_lines, layer_lines, wrapped
from train.failures.probe import Probe
from train.failures.report import BadStep, Diagnosis, Recovered, diagnose
from train.failures.watch import LayerCall
from train.session import machine_for
from train.steps.guard import StepSnapshot
from train.weights import load_weights


def replay_lines(run: RunContext, saved: SavedFailure) -> list[str]:
    """Repeat a saved bad step.

    Args:
        run: run built from the saved run's config, or a changed one.
        saved: failure folder of the run whose step went wrong.

    Returns:
        Lines for a terminal, at most 110 characters wide; the last one says whether it went wrong again.

    Raises:
        ReplayError: the saved weights don't fit the trainer.
    """
    state = saved.state
    begun = StepSnapshot(None, state["torch_random"], state["cuda_random"])
    bad = BadStep(state["split"], state["epoch"], state["steps"], state["step"], state["random"], begun)
    _load_weights(run, saved)
    with machine_for(run):  # as it was
        diagnosis = diagnose(run, bad, _batches(saved), _loss_scale(run, saved))
    return _lines(run, bad, saved, diagnosis)


def _load_weights(run: RunContext, saved: SavedFailure) -> None:
    try:
        load_weights(run.model, saved.weights)
        for name, module in run.other_modules().items():
            load_weights(module, saved.state["modules"][name])
    except (RuntimeError, KeyError) as error:
        raise ReplayError(
            f"the weights of the failed run do not fit {run.name} as it is now: {error}\n"
            "Its model has changed since, in the code or by the settings given."
        ) from error


def _batches(saved: SavedFailure) -> Recovered | None:
    state = saved.state
    random = {"torch_random": state["torch_random"], "cuda_random": state["cuda_random"]}
    if saved.batches is None:
        return None  # they are read again
    indices = saved.report.get("indices")
    return Recovered(saved.batches, indices, first=state["first"], harmless=state["harmless"], **random)


def _loss_scale(run: RunContext, saved: SavedFailure) -> float:
    return saved.state["loss_scale"] if run.precision.scaler is not None else 1.0


def _lines(run: RunContext, bad: BadStep, saved: SavedFailure, diagnosis: Diagnosis) -> list[str]:
    finding, probe = diagnosis.finding, diagnosis.probe
    lines = [*_head(run, bad, diagnosis.recovered), ""]
    if probe is not None:
        batches = diagnosis.recovered.batches
        if batches is not None and len(batches) > 1:
            lines.append(f"batch {probe.batch + 1} of the step's {len(batches)}")
        lines += [*layer_lines(probe.layers, _first_bad(probe)), ""]
        lines += [f"loss: {', '.join(f'{loss:.6g}' for loss in probe.losses)}", *gradient_lines(probe), ""]
    lines += wrapped("finding: ", finding.text)
    for text in (*finding.operations, *finding.notes):
        lines += wrapped("  ", text)
    for number, text in enumerate(suggestions(finding, diagnosis.strange, run.config)):
        lines += wrapped("     " if number else "try: ", text)
    return [*lines, _verdict(saved.report, diagnosis)]


def _first_bad(probe: Probe) -> LayerCall | None:
    """Return the call to mark: the first with values that are not finite, which may have come to it as its input."""
    if probe.first is not None and probe.first[0] is not None:
        return probe.first[0]
    return next((call for call in probe.layers if call.output is not None and call.output.wrong), None)


def _head(run: RunContext, bad: BadStep, recovered: Recovered) -> list[str]:
    where = f"epoch {bad.epoch + 1}, step {bad.steps + 1} (step {bad.step + 1} of the run)"
    if bad.split == "val":
        where = f"validation after epoch {bad.epoch}, batch {recovered.first + 1}"
    config = run.config
    lines = [f"{run.name}: {where}; precision {config.precision}, device {run.device}"]
    for indices in recovered.indices or []:
        lines += wrapped("samples ", listed(indices))
    return lines


def _verdict(report: dict[str, Any], diagnosis: Diagnosis) -> str:
    finding = diagnosis.finding
    if diagnosis.probe is None or not finding.reproduced:
        return "did not come again"
    before = report.get("finding") or {}
    same = before.get("kind") == finding.kind and report.get("first_bad_layer") == finding.layer
    return "reproduced" if same else "reproduced, in another place than in the run"
