"""`--replay`: the step at which a run's numbers went wrong, repeated and shown layer by layer."""

from typing import Any

from storage.failed_runs import ReplayError
from train.checkpointing.run_state import other_modules
from train.failures.batch_check import listed
from train.failures.files import SavedFailure
from train.failures.finding import suggestions
from train.failures.layer_table import gradient_lines, layer_lines, wrapped
from train.failures.probe import Probe
from train.failures.report import BadStep, Diagnosis, Recovered, diagnose
from train.failures.watch import LayerCall
from train.session import machine_for
from train.steps.guard import Beginning


def replay_lines(trainer: Any, saved: SavedFailure) -> list[str]:
    """Repeat a saved bad step.

    Args:
        trainer: a BaseTrainer of the run's config, or a changed one.
        saved: what its run kept.

    Returns:
        Lines for a terminal, at most 110 characters wide; the last one says whether it went wrong again.

    Raises:
        ReplayError: the saved weights don't fit the trainer.
    """
    state = saved.state
    begun = Beginning(None, state["torch_random"], state["cuda_random"])
    bad = BadStep(*(state[name] for name in ("split", "epoch", "steps", "step", "random")), begun)
    _load_weights(trainer, saved)
    with machine_for(trainer):  # as it was
        diagnosis = diagnose(trainer, bad, _batches(saved), _loss_scale(trainer, saved))
    return _lines(trainer, bad, saved, diagnosis)


def _load_weights(trainer: Any, saved: SavedFailure) -> None:
    try:
        trainer.model.load_state_dict(saved.weights)
        for name, module in other_modules(trainer).items():
            module.load_state_dict(saved.state["modules"][name])
    except (RuntimeError, KeyError) as error:
        raise ReplayError(
            f"the weights of the failed run do not fit {type(trainer).__name__} as it is now: {error}\n"
            "Its model has changed since, in the code or by the settings given."
        ) from error


def _batches(saved: SavedFailure) -> Recovered | None:
    state = saved.state
    random = {"torch_random": state["torch_random"], "cuda_random": state["cuda_random"]}
    if saved.batches is None:
        return None  # they are read again
    indices = saved.report.get("indices")
    return Recovered(saved.batches, indices, state["first"], state["harmless"], **random)


def _loss_scale(trainer: Any, saved: SavedFailure) -> float:
    return saved.state["loss_scale"] if trainer._precision.scaler is not None else 1.0


def _lines(trainer: Any, bad: BadStep, saved: SavedFailure, diagnosis: Diagnosis) -> list[str]:
    finding, probe = diagnosis.finding, diagnosis.probe
    lines = [*_head(trainer, bad, diagnosis.recovered), ""]
    if probe is not None:
        if len(diagnosis.recovered.batches) > 1:
            lines.append(f"batch {probe.batch + 1} of the step's {len(diagnosis.recovered.batches)}")
        lines += [*layer_lines(probe.layers, _first_bad(probe)), ""]
        lines += [f"loss: {', '.join(f'{loss:.6g}' for loss in probe.losses)}", *gradient_lines(probe), ""]
    lines += wrapped("finding: ", finding.text)
    for text in (*finding.operations, *finding.notes):
        lines += wrapped("  ", text)
    for number, text in enumerate(suggestions(finding, diagnosis.strange, trainer.config)):
        lines += wrapped("     " if number else "try: ", text)
    return [*lines, _verdict(saved.report, diagnosis)]


def _first_bad(probe: Probe) -> LayerCall | None:
    """Return the call to mark: the first with values that are not finite, which may have come to it as its input."""
    if probe.first is not None and probe.first[0] is not None:
        return probe.first[0]
    return next((call for call in probe.layers if call.output is not None and call.output.wrong), None)


def _head(trainer: Any, bad: BadStep, recovered: Recovered) -> list[str]:
    where = f"epoch {bad.epoch + 1}, step {bad.steps + 1} (step {bad.step + 1} of the run)"
    if bad.split == "val":
        where = f"validation after epoch {bad.epoch}, batch {recovered.first + 1}"
    config = trainer.config
    lines = [f"{type(trainer).__name__}: {where}; precision {config.precision}, device {trainer.device}"]
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
