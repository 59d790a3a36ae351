"""What happens when numbers go wrong: the bad step is repeated and looked at, and kept for `train.py --replay`."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from data.batches import to_device
from storage.errors import OutputError
from train.checkpointing.run_state import other_modules
from train.checkpointing.weights import plain_weights
from train.errors import ElsewhereError, TrainingError
from train.failures.batch_check import BAD, Strange, listed, strange_samples
from train.failures.files import SavedFailure, newest_finite, write_failure
from train.failures.finding import Finding, find_cause, suggestions
from train.failures.measure import Measure
from train.failures.probe import Probe, probe_step
from train.loop.meters import EpochMeter
from train.steps.eager import windows
from train.steps.guard import Beginning

_SHARDED = "it is not repeated here, where the model is sharded; after a bad step, --replay in one process does that"


@dataclass(frozen=True)
class BadStep:
    """Where numbers went wrong.

    Attributes:
        split: `train` or `val`.
        epoch: epochs finished before it: the number that `set_epoch` got.
        steps: good optimizer steps of this epoch before it; 0 for `val`.
        step: good optimizer steps of the run before it.
        random: states of the generators when the epoch, or the validation, began; None where loaders draw by epoch.
        begun: what the bad step began with; of `val` it is not known.
    """

    split: str
    epoch: int
    steps: int
    step: int
    random: dict[str, Any] | None
    begun: Beginning = field(default_factory=Beginning)


@dataclass
class Recovered:
    """The batches of a bad step, read again.

    Attributes:
        batches: None where they could not be.
        indices: of each batch's samples in the dataset; None if unknown.
        first: number of the first batch in the pass.
        harmless: fields that were not finite in the good batch before either.
        problem: why there are no batches.
        torch_random: state of torch's generator on the CPU when the step began.
        cuda_random: the same of the model's CUDA device.
    """

    batches: list[Any] | None
    indices: list[list[Any]] | None = None
    first: int = 0
    harmless: list[str] = field(default_factory=list)
    problem: str = ""
    torch_random: torch.Tensor | None = None
    cuda_random: torch.Tensor | None = None


@dataclass
class Diagnosis:
    """What was found out about a bad step."""

    recovered: Recovered
    finding: Finding
    probe: Probe | None = None
    strange: list[Strange] = field(default_factory=list)


def numbers_gone_wrong(trainer: Any, bad: BadStep) -> TrainingError:
    """Repeat a bad step to see where it goes wrong, and write what was found to the run's `failure/`.

    Args:
        trainer: a BaseTrainer whose parameters and buffers are those of before the step. They still are afterwards.
        bad: which step.

    Returns:
        The error to raise. Whatever goes wrong in here is a sentence in it.
    """
    with trainer.averaged_weights() if bad.split == "val" else nullcontext():
        diagnosis = diagnose(trainer, bad)
        # Of several processes, each of which has repeated its part of the step, the first that saw it tells.
        seen = trainer._process_group.all_gather_object(diagnosis.finding.reproduced)
        teller = seen.index(True) if any(seen) else 0
        weights = plain_weights(trainer.model)  # which they may have to put together
        text = trainer._process_group.broadcast_object(lambda: _told(trainer, bad, diagnosis, weights), teller)
        return TrainingError(text) if trainer._process_group.is_main_process else ElsewhereError(text)


def _told(trainer: Any, bad: BadStep, diagnosis: Diagnosis, weights: dict[str, torch.Tensor]) -> str:
    """Write what was found, and return it in words."""
    rate = float(trainer.optimizer.param_groups[0]["lr"])
    run = trainer.run_folder.shown
    good = newest_finite(sorted((run / "checkpoints").glob("epoch-*")))
    advice = suggestions(diagnosis.finding, diagnosis.strange, trainer.config, good)
    try:
        folder = write_failure(run, _saved(trainer, bad, diagnosis, rate, advice, weights))
        kept = [f"the report is {folder / 'report.json'}", f"repeat it: python train.py --replay {folder.parent}"]
    except OutputError as error:
        kept = [f"the failure could not be kept for a replay: {error}"]
    except Exception as error:  # the error below matters more than what keeps us from saving it
        kept = [f"the failure could not be kept for a replay: {type(error).__name__}: {error}"]
    if not trainer._process_group.is_single_process:
        kept.insert(
            0, f"the samples are those of process {trainer._process_group.rank} of {trainer._process_group.world_size}"
        )
    return "\n".join(_error_lines(bad, diagnosis, advice) + [f"  {line}" for line in kept])


def diagnose(
    trainer: Any, bad: BadStep, recovered: Recovered | None = None, loss_scale: float | None = None
) -> Diagnosis:
    """Read the batches of a bad step again, repeat the step, find the cause.

    Args:
        trainer: a BaseTrainer with the weights of before the step.
        bad: which step.
        recovered: its batches, where they are known.
        loss_scale: of fp16; None asks the trainer.
    """
    if trainer._sharded is not None and bad.split == "val":
        return Diagnosis(Recovered(None, problem=_SHARDED), Finding("none", _SHARDED))
    try:
        recovered = recovered or recover(trainer, bad)
    except Exception as error:  # whatever a user's dataset or hook raises
        recovered = Recovered(None, problem=f"{type(error).__name__}: {error}")
    if recovered.batches is None:
        text = f"the bad batch could not be read again: {recovered.problem}"
        return Diagnosis(recovered, Finding("none", text))
    strange = strange_samples(recovered.batches, recovered.indices)
    if trainer._sharded is not None:
        worst = [each for each in strange if each.what == BAD]
        finding = Finding("batch", f"the data: {worst[0]}") if worst else Finding("none", _SHARDED)
        return Diagnosis(recovered, finding, strange=strange)
    try:
        scale = _loss_scale(trainer) if loss_scale is None else loss_scale
        training, random = bad.split == "train", (recovered.torch_random, recovered.cuda_random)
        probe = probe_step(trainer, recovered.batches, training, *random, scale)
    except Exception as error:  # of the trainer's hook, which hooks and tracing may disturb
        text = f"the step could not be repeated: {type(error).__name__}: {error}"
        return Diagnosis(recovered, Finding("none", text), strange=strange)
    return Diagnosis(recovered, find_cause(probe, strange, bad.split, recovered.harmless), probe, strange)


def _loss_scale(trainer: Any) -> float:
    scaler = trainer._precision.scaler
    return 1.0 if scaler is None else float(scaler.get_scale())  # host-device synchronisation


def recover(trainer: Any, bad: BadStep) -> Recovered:
    """Read the batches of a bad step again.

    Args:
        trainer: a BaseTrainer; of a validation with the weights that it validates.
        bad: which step.
    """
    loader = trainer.train_loader if bad.split == "train" else trainer.val_loader
    size = trainer.config.accumulation_steps if bad.split == "train" else 1
    with _states_kept(trainer):
        _begin_pass(trainer, loader, bad)
        rest = windows(loader, size)
        found = _nth(rest, bad) if bad.split == "train" else _first_bad_batch(trainer, rest)
        if bad.begun.batches is not None:  # the very ones, whatever the loader draws for them
            found.batches = bad.begun.batches
        if found.batches is None:
            return found
        found.first *= size
        _begin_pass(trainer, loader, bad)
        from data.batch_indices import batch_indices

        found.indices = batch_indices(loader, found.first, len(found.batches))
    return found


@contextmanager
def _states_kept(trainer: Any) -> Iterator[None]:
    before = trainer._random_sources.states()
    try:
        yield
    finally:
        trainer._random_sources.set_states(before)


def _begin_pass(trainer: Any, loader: Any, bad: BadStep) -> None:
    if bad.random is not None:
        trainer._random_sources.set_states(bad.random)
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(bad.epoch)


def _nth(rest: Iterator[Any], bad: BadStep) -> Recovered:
    """Pass over the good steps; what is not finite in the last one's batches does no harm."""
    last, passed = None, 0
    for window in itertools.islice(rest, bad.steps):
        last, passed = window, passed + 1
    window = next(rest, None)
    if window is None:
        return Recovered(None, problem=f"train_loader gave only {passed} steps' batches this time")
    good = strange_samples(last.batches, None) if last is not None else []
    harmless = [each.field for each in good if each.what == BAD]
    states = {"torch_random": bad.begun.random, "cuda_random": bad.begun.cuda_random}
    return Recovered(window.batches, first=bad.steps, harmless=harmless, **states)


def _first_bad_batch(trainer: Any, rest: Iterator[Any]) -> Recovered:
    """Go through a validation until a loss is not finite."""
    meter, trainer._meter = trainer._meter, EpochMeter()
    training = trainer.model.training
    trainer.model.eval()
    cuda = trainer.device.type == "cuda"
    try:
        for number, window in enumerate(rest):
            state = torch.get_rng_state()
            on_device = torch.cuda.get_rng_state(trainer.device) if cuda else None
            with torch.no_grad():
                loss = trainer._forward_batch(to_device(window.batches[0], trainer.device))
            if not math.isfinite(float(loss)):  # host-device synchronisation
                return Recovered(window.batches, first=number, torch_random=state, cuda_random=on_device)
    finally:
        trainer._meter = meter
        trainer.model.train(training)
    return Recovered(None, problem="each batch's loss was finite when the validation was repeated")


def _saved(
    trainer: Any,
    bad: BadStep,
    diagnosis: Diagnosis,
    rate: float,
    advice: list[str],
    weights: dict[str, torch.Tensor],
) -> SavedFailure:
    recovered = diagnosis.recovered
    state = {
        "split": bad.split,
        "epoch": bad.epoch,
        "steps": bad.steps,
        "step": bad.step,
        "random": bad.random,
        "torch_random": recovered.torch_random if recovered.batches is not None else bad.begun.random,
        "cuda_random": recovered.cuda_random if recovered.batches is not None else bad.begun.cuda_random,
        "modules": {name: module.state_dict() for name, module in other_modules(trainer).items()},
        "first": recovered.first,
        "harmless": recovered.harmless,
        "loss_scale": _loss_scale(trainer),
    }
    report = _report(trainer, bad, diagnosis, rate, advice)
    return SavedFailure(report, weights, state, recovered.batches)


def _report(trainer: Any, bad: BadStep, diagnosis: Diagnosis, rate: float, advice: list[str]) -> dict[str, Any]:
    finding, probe = diagnosis.finding, diagnosis.probe or Probe()

    def numbers(measure: Measure | None) -> dict[str, Any] | None:
        if measure is None:
            return None
        return {"norm": measure.norm, "max": measure.largest, "finite": measure.finite, "values": measure.describe()}

    def by_norm(measures: dict[str, Measure]) -> list[dict[str, Any]]:
        ordered = sorted(measures, key=lambda name: _size(measures[name]), reverse=True)
        return [{"name": name, **numbers(measures[name])} for name in ordered]

    return {
        "trainer": type(trainer).__name__,
        "split": bad.split,
        "epoch": bad.epoch + 1 if bad.split == "train" else bad.epoch,
        "step_of_epoch": bad.steps + 1 if bad.split == "train" else None,
        "step": bad.step + 1 if bad.split == "train" else bad.step,
        "first_batch": diagnosis.recovered.first + 1,
        "indices": diagnosis.recovered.indices,
        "finding": {
            "kind": finding.kind,
            "text": finding.text,
            "operations": finding.operations,
            "notes": finding.notes,
        },
        "first_bad_layer": finding.layer,
        "losses": [loss if math.isfinite(loss) else str(loss) for loss in probe.losses],
        "layers": [
            {"name": call.name, "type": call.kind, "output": numbers(call.output), "inputs": numbers(call.inputs)}
            for call in probe.layers
        ],
        "gradient_norm": probe.gradient_norm,
        "gradients": by_norm(probe.gradients),
        "parameters": by_norm(probe.parameters),
        "suggestions": advice,
        "precision": trainer.config.precision,
        "learning_rate": rate,
    }


def _size(measure: Measure) -> float:
    return measure.norm if measure.finite else math.inf


def _error_lines(bad: BadStep, diagnosis: Diagnosis, advice: list[str]) -> list[str]:
    finding = diagnosis.finding
    where = f"in step {bad.steps + 1} of epoch {bad.epoch + 1} (step {bad.step + 1} of the run)"
    if bad.split == "val":
        where = f"in the validation after epoch {bad.epoch} (step {bad.step} of the run)"
    lines = [f"numbers went wrong {where}: {finding.text}"]
    lines += [f"  {operation}" for operation in finding.operations]
    lines += [f"  note: {note}" for note in finding.notes[:3]]
    if finding.kind != "batch" and diagnosis.recovered.indices:
        every = list(itertools.chain.from_iterable(diagnosis.recovered.indices))
        lines.append(f"  samples of the step: {listed(every)}")
    lines += [f"  {'try:' if not number else '    '} {text}" for number, text in enumerate(advice)]
    what = "this step" if bad.split == "train" else "this validation"
    return [*lines, f"  the model's weights are those of before {what}; no later step changed them"]
