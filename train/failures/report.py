"""What happens when numbers go wrong: the bad step is repeated and looked at, and kept for `train.py --replay`."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from constants import command
from constants.counting import counted
from data.batches import to_device
from data.epochs import set_epoch
from data.loaders import Loader
from data.token_batches import TokenBatch
from storage.errors import OutputError
from train.context import RunContext
from train.errors import ElsewhereError, TrainingError
from train.failures.batch_check import BAD, Strange, listed, strange_samples
from train.failures.files import SavedFailure, newest_finite, write_failure
from train.failures.finding import Finding, find_cause, suggestions
from train.failures.measure import Measure
from train.failures.probe import Probe, probe_step
from train.loop.meters import EpochMeter
from train.steps.eager import group_microbatches
from train.steps.guard import StepSnapshot
from train.weights import plain_state_dict, plain_weights

_SHARDED = "it is not repeated here, where the model is sharded; after a bad step, --replay in one process does that"


@dataclass(frozen=True)
class BadStep:
    """Where numbers went wrong.

    Attributes:
        split: part of the run that the step is of: `train` or `val`.
        epoch: epochs finished before the bad step: the number that `set_epoch` got.
        steps: good optimizer steps of this epoch before the bad one; 0 for `val`.
        step: good optimizer steps of the run before the bad one.
        random: states of the generators when the epoch, or the validation, began; None where loaders draw by epoch.
        begun: batches and random states that the bad step began with; empty for `val`, where they are not known.
    """

    split: str
    epoch: int
    steps: int
    step: int
    random: dict[str, Any] | None
    begun: StepSnapshot = field(default_factory=StepSnapshot)


@dataclass
class Recovered:
    """The batches of a bad step, read again.

    Attributes:
        batches: batches of the bad step; None where they could not be read.
        indices: indices in the dataset of each batch's samples; None if unknown.
        origins: of each of these samples where it comes from, such as a line of a file; empty if unknown.
        first: number of the first batch in the pass.
        harmless: fields of a batch that were not finite in the good batch before either.
        problem: reason why there are no batches; empty where there are.
        torch_random: state of torch's generator on the CPU when the step began; None if unknown.
        cuda_random: state of the generator of the model's CUDA device when the step began; None if unknown.
    """

    batches: list[Any] | None
    indices: list[list[Any]] | None = None
    origins: list[str] = field(default_factory=list)
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


def numbers_gone_wrong(run: RunContext, bad: BadStep) -> TrainingError:
    """Repeat a bad step to see where it goes wrong, and write what was found to the run's `failure/`.

    Args:
        run: the run whose parameters and buffers are those of before the step. They still are afterwards.
        bad: place of the bad step in the run.

    Returns:
        The error to raise. Whatever goes wrong in here is a sentence in it.
    """
    with run.averaged_weights() if bad.split == "val" else nullcontext():
        diagnosis = diagnose(run, bad)
        # Of several processes, each of which has repeated its part of the step, the first that saw it tells.
        seen = run.process_group.all_gather_object(diagnosis.finding.reproduced)
        teller = seen.index(True) if any(seen) else 0
        weights = plain_weights(run.model)  # which they may have to put together
        text = run.process_group.broadcast_object(lambda: _told(run, bad, diagnosis, weights), teller)
        return TrainingError(text) if run.process_group.is_main_process else ElsewhereError(text)


def _told(run: RunContext, bad: BadStep, diagnosis: Diagnosis, weights: dict[str, Any]) -> str:
    """Write what was found, and return it in words."""
    rate = float(run.optimizer.param_groups[0]["lr"])
    shown = run.folder.shown
    good = newest_finite(sorted((shown / "checkpoints").glob("epoch-*")))
    advice = suggestions(diagnosis.finding, diagnosis.strange, run.config, good)
    try:
        folder = write_failure(shown, _saved(run, bad, diagnosis, rate, advice, weights))
        kept = [f"the report is {folder / 'report.json'}", f"repeat it: {command('train')} --replay {folder.parent}"]
    except OutputError as error:
        kept = [f"the failure could not be kept for a replay: {error}"]
    except Exception as error:  # the error below matters more than what keeps us from saving it
        kept = [f"the failure could not be kept for a replay: {type(error).__name__}: {error}"]
    if not run.process_group.is_single_process:
        kept.insert(0, f"the samples are those of process {run.process_group.rank} of {run.process_group.world_size}")
    return "\n".join(_error_lines(bad, diagnosis, advice) + [f"  {line}" for line in kept])


def diagnose(
    run: RunContext, bad: BadStep, recovered: Recovered | None = None, loss_scale: float | None = None
) -> Diagnosis:
    """Read the batches of a bad step again, repeat the step, find the cause.

    Args:
        run: the run with the weights of before the step.
        bad: place of the bad step in the run.
        recovered: batches of the bad step, where they are known; None reads them again.
        loss_scale: factor by which fp16 multiplies the loss; None asks the trainer.
    """
    if run.sharded is not None and bad.split == "val":
        return Diagnosis(Recovered(None, problem=_SHARDED), Finding("none", _SHARDED))
    try:
        recovered = recovered or recover(run, bad)
    except Exception as error:  # whatever a user's dataset or loss function raises
        recovered = Recovered(None, problem=f"{type(error).__name__}: {error}")
    if recovered.batches is None:
        text = f"the bad batch could not be read again: {recovered.problem}"
        return Diagnosis(recovered, Finding("none", text))
    strange = strange_samples(recovered.batches, recovered.indices)
    if run.sharded is not None:
        worst = [each for each in strange if each.what == BAD]
        finding = Finding("batch", f"the data: {worst[0]}") if worst else Finding("none", _SHARDED)
        return Diagnosis(recovered, finding, strange=strange)
    try:
        scale = _loss_scale(run) if loss_scale is None else loss_scale
        training, random = bad.split == "train", (recovered.torch_random, recovered.cuda_random)
        probe = probe_step(run, recovered.batches, training, *random, scale)
    except Exception as error:  # of the trainer's hook, which hooks and tracing may disturb
        text = f"the step could not be repeated: {type(error).__name__}: {error}"
        return Diagnosis(recovered, Finding("none", text), strange=strange)
    return Diagnosis(recovered, find_cause(probe, strange, bad.split, recovered.harmless), probe, strange)


def _loss_scale(run: RunContext) -> float:
    scaler = run.precision.scaler
    return 1.0 if scaler is None else float(scaler.get_scale())  # host-device synchronisation


def recover(run: RunContext, bad: BadStep) -> Recovered:
    """Read the batches of a bad step again.

    Args:
        run: the run; of a validation with the weights that it validates.
        bad: place of the bad step in the run.
    """
    loader = run.train_loader if bad.split == "train" else run.val_loader
    size = run.config.accumulation_steps if bad.split == "train" else 1
    with _states_kept(run):
        _begin_pass(run, loader, bad)
        rest = group_microbatches(loader, size)
        found = _nth(rest, bad) if bad.split == "train" else _first_bad_batch(run, rest)
        if bad.begun.batches is not None:  # the very ones, whatever the loader draws for them
            found.batches = bad.begun.batches
        if found.batches is None:
            return found
        found.first *= size
        _begin_pass(run, loader, bad)
        from data.batch_indices import batch_indices

        found.indices = batch_indices(loader, found.first, len(found.batches)) or _numbered(found.batches)
        found.origins = _origins(loader, found.indices)
    return found


def _numbered(batches: Sequence[Any]) -> list[list[Any]] | None:
    """Return the indices of rows of tokens, which their batches know; None for other batches."""
    numbers = [list(batch.numbers) if isinstance(batch, TokenBatch) else [] for batch in batches]
    return numbers if all(numbers) else None


def _origins(loader: Loader, indices: Sequence[Sequence[Any]] | None) -> list[str]:
    """Name samples by where a loader says that they come from; none where it doesn't."""
    origins = getattr(loader, "origins", ())
    every = list(itertools.chain.from_iterable(indices or ()))
    known = isinstance(origins, tuple) and all(isinstance(index, int) and index < len(origins) for index in every)
    return [origins[index] for index in every] if known and origins and all(origins) else []


@contextmanager
def _states_kept(run: RunContext) -> Iterator[None]:
    before = run.random_sources.state_dict()
    try:
        yield
    finally:
        run.random_sources.load_state_dict(before)


def _begin_pass(run: RunContext, loader: Loader, bad: BadStep) -> None:
    if bad.random is not None:
        run.random_sources.load_state_dict(bad.random)
    set_epoch(loader, bad.epoch)


def _nth(rest: Iterator[Any], bad: BadStep) -> Recovered:
    """Pass over the good steps; what is not finite in the last one's batches does no harm."""
    last, passed = None, 0
    for step_input in itertools.islice(rest, bad.steps):
        last, passed = step_input, passed + 1
    step_input = next(rest, None)
    if step_input is None:
        return Recovered(None, problem=f"train_loader gave only the batches of {counted(passed, 'step')} this time")
    good = strange_samples(last.microbatches, None) if last is not None else []
    harmless = [each.field for each in good if each.what == BAD]
    return Recovered(
        step_input.microbatches,
        first=bad.steps,
        harmless=harmless,
        torch_random=bad.begun.random,
        cuda_random=bad.begun.cuda_random,
    )


def _first_bad_batch(run: RunContext, rest: Iterator[Any]) -> Recovered:
    """Go through a validation until a loss is not finite."""
    meter, run.meter = run.meter, EpochMeter()
    training = run.model.training
    run.model.eval()
    cuda = run.device.type == "cuda"
    try:
        for number, step_input in enumerate(rest):
            state = torch.get_rng_state()
            on_device = torch.cuda.get_rng_state(run.device) if cuda else None
            with torch.no_grad():
                loss = run.loss_function(to_device(step_input.microbatches[0], run.device))
            if not math.isfinite(float(loss)):  # host-device synchronisation
                return Recovered(step_input.microbatches, first=number, torch_random=state, cuda_random=on_device)
    finally:
        run.meter = meter
        run.model.train(training)
    return Recovered(None, problem="each batch's loss was finite when the validation was repeated")


def _saved(
    run: RunContext,
    bad: BadStep,
    diagnosis: Diagnosis,
    rate: float,
    advice: list[str],
    weights: dict[str, Any],
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
        "modules": {name: plain_state_dict(module) for name, module in run.other_modules().items()},
        "first": recovered.first,
        "harmless": recovered.harmless,
        "loss_scale": _loss_scale(run),
    }
    report = _report(run, bad, diagnosis, rate, advice)
    return SavedFailure(report, weights, state, recovered.batches)


def _report(run: RunContext, bad: BadStep, diagnosis: Diagnosis, rate: float, advice: list[str]) -> dict[str, Any]:
    finding, probe = diagnosis.finding, diagnosis.probe or Probe()

    def numbers(measure: Measure) -> dict[str, Any]:
        return {"norm": measure.norm, "max": measure.largest, "finite": measure.finite, "values": measure.describe()}

    def by_norm(measures: dict[str, Measure]) -> list[dict[str, Any]]:
        ordered = sorted(measures, key=lambda name: _size(measures[name]), reverse=True)
        return [{"name": name, **numbers(measures[name])} for name in ordered]

    return {
        "trainer": run.name,
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
            {
                "name": call.name,
                "type": call.kind,
                "output": None if call.output is None else numbers(call.output),
                "inputs": None if call.inputs is None else numbers(call.inputs),
            }
            for call in probe.layers
        ],
        "gradient_norm": probe.gradient_norm,
        "gradients": by_norm(probe.gradients),
        "parameters": by_norm(probe.parameters),
        "suggestions": advice,
        "precision": run.config.precision,
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
        named = diagnosis.recovered.origins
        lines.append(f"  rows of the step: {listed(named)}" if named else f"  samples of the step: {listed(every)}")
    lines += [f"  {'try:' if not number else '    '} {text}" for number, text in enumerate(advice)]
    what = "this step" if bad.split == "train" else "this validation"
    return [*lines, f"  the model's weights are those of before {what}; no later step changed them"]
