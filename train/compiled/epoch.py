"""The epoch as one program: forward, backward, clip and update of many steps, without Python between them."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from data.batches import tensors_in, with_tensors
from data.tensor_rows import quick
from train.compiled.compiling import compile_exactly, own_code
from train.compiled.evaluation import Evaluation
from train.compiled.fast import FastStep, refuse_scaled_loss
from train.compiled.program import LossProgram
from train.compiled.rule import Tensors, UpdateRule
from train.context import RunContext
from train.machine import SMALL_STEP_FLOPS
from train.snapshot import TensorCopies
from train.steps.eager import EagerStep, StepInput
from train.steps.guard import StepSnapshot

_LEAST_STEPS = 250  # of a call of the program


class Chunk(StepInput):
    """Steps that are done in one go.

    Args:
        rows: the epoch's tensors, each (steps, accumulation steps, batch, ...).
        start: number of the first step in the epoch, from 0.
        stop: number of the step behind the last one.
    """

    def __init__(self, rows: list[torch.Tensor], start: int, stop: int) -> None:
        super().__init__([], stop - start)
        self.rows, self.start, self.stop = rows, start, stop

    def __len__(self) -> int:
        return self.steps * self.rows[0].shape[1]


class EpochStep(FastStep):
    """All of a step compiled, and the loop over the steps inside. For a `TensorLoader` and Adam, AdamW or SGD.

    Args:
        run: run whose steps are done.
        eager: eager step that this one must equal.
        chunk: least number of steps between two looks at the running loss.
    """

    name = "epoch"

    def __init__(self, run: RunContext, eager: EagerStep, chunk: int) -> None:
        super().__init__(run, eager)
        # A call costs as much as a few steps of a small model, and Ctrl-C waits for its end.
        small = run.step_flops is not None and run.step_flops < SMALL_STEP_FLOPS
        self._chunk = max(chunk, _LEAST_STEPS) if small else chunk
        self._example: Any = None
        self._numbers: torch.Tensor | None = None
        self._values: torch.Tensor | None = None  # of the epoch so far, added up step by step
        self._batches = 0
        self._rule: UpdateRule | None = None
        self._averages: list[torch.Tensor] = []  # of the parameters that are trained, where the run has them
        self.evaluation = EpochEvaluation(run, compile_loop)

    @property
    def rule(self) -> UpdateRule:
        """The optimizer's update as a function, from the first epoch on."""
        if self._rule is None:
            raise RuntimeError(f"step = {self.name} has no update rule before its first epoch")
        return self._rule

    @property
    def chunk(self) -> int:
        """Optimizer steps of a usual step input."""
        return self._chunk if self.fast else 1

    def step_inputs(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[StepInput]:
        """Yield what `__call__` takes: chunks of the epoch's rows, then the rest that is no full step input.

        For its arguments see `EagerStep.step_inputs`.
        """
        self._example = None  # it holds the last epoch's data, which may be a copy
        found = _rows(loader) if self.fast else None
        if found is None:
            if self.fast:
                self.fall_back(_no_rows(loader))
            yield from self.eager.step_inputs(loader, skip, skipped)
            return
        skipped()
        rows, batch_size = found
        size = batch_size * self.eager.accumulation_steps
        leaves = list(tensors_in(rows))
        steps = len(leaves[0]) // size
        if steps:
            self._example = with_tensors(rows, [leaf[:batch_size] for leaf in leaves])
            self.begin_epoch(self._example)
            shape = (steps, self.eager.accumulation_steps, batch_size)
            full = [leaf[: steps * size].unflatten(0, shape) for leaf in leaves]
            yield from self._chunks(full, min(skip, steps), steps)
        tail = with_tensors(rows, [leaf[steps * size :] for leaf in leaves])
        yield from self.eager.step_inputs(_cut(tail, batch_size), max(0, skip - steps))

    def _chunks(self, rows: list[torch.Tensor], start: int, steps: int) -> Iterator[Chunk]:
        while start < steps:
            # One step while they are compared with eager's, or are eager; else up to the next look at the running loss.
            single = not self.fast or self._unchecked
            stop = start + 1 if single else min(steps, (start // self._chunk + 1) * self._chunk)
            yield Chunk(rows, start, stop)
            start = stop

    def build(self, batch: Any) -> None:
        """Record the loss function and compile the loop around it."""
        refuse_scaled_loss(self.run)
        trained = [parameter for parameter in self.eager.update.parameters if parameter.requires_grad]
        self._program = program = LossProgram(self.run, batch, trained)
        parameters = [program.parameters[number] for number in program.trained]
        if any(tensor.dim() == 0 and tensor.dtype == torch.float64 for tensor in [*parameters, *program.buffers]):
            raise ValueError("torch's compiler loses changes of a float64 number; give the parameter the shape (1,)")
        self._rule = rule = UpdateRule(self.run.optimizer, parameters, self.eager.update.clip)
        decay = 1.0
        if self.eager.average is not None:
            by_parameter = dict(zip(map(id, self.eager.average.parameters), self.eager.average.averages, strict=True))
            decay, self._averages = self.eager.average.decay, [by_parameter[id(p)] for p in parameters]
        self._function = compile_loop(_epoch_function(program, rule, self.eager.accumulation_steps, decay))

    def rule_changed(self) -> str | None:
        """Say what of the optimizer's settings, besides the learning rate, is no longer as it was compiled."""
        return self.rule.changed()

    def fits(self, step_input: StepInput) -> bool:
        """Say whether it is a chunk, not the rest of an epoch."""
        return isinstance(step_input, Chunk)

    def single_steps(self, step_input: StepInput) -> Iterator[StepInput]:
        """Yield the steps of a step input as eager takes them."""
        if not isinstance(step_input, Chunk):
            yield step_input
            return
        for step in range(step_input.start, step_input.stop):
            batches = zip(*(rows[step].unbind() for rows in step_input.rows), strict=True)
            yield StepInput([with_tensors(self._example, leaves) for leaves in batches])

    def do_steps(self, step_input: StepInput) -> None:
        """Do a chunk's steps in one call; where numbers go wrong in it, only those before the bad step."""
        if not isinstance(step_input, Chunk):
            raise TypeError("the program takes chunks of an epoch's rows only")
        chunk, guard = step_input, self.eager.update.guard
        if guard.blocked:
            guard.note_bad(chunk.steps + guard.missed_steps(), guard.snapshot_of(guard.missed_steps()))
            return
        before = _Kept(self)
        if not before.still_finite(self._call(chunk)):
            before.restore()
            for step in range(chunk.start, chunk.stop):
                if step > chunk.start:
                    self.eager.after_update()
                before = _Kept(self)
                if not before.still_finite(self._call(Chunk(chunk.rows, step, step + 1))):
                    before.restore()
                    (single,) = self.single_steps(Chunk(chunk.rows, step, step + 1))
                    guard.note_bad(chunk.stop - step, StepSnapshot(single.microbatches, before.random))
                    return
        guard.settle()

    def _call(self, chunk: Chunk) -> torch.Tensor:
        """Do a chunk's steps; returns what the program has added up in the epoch so far."""
        program, rule = self.program, self.rule
        state = rule.state()
        done = rule.steps_done()
        rows = []
        for step in range(1, chunk.steps + 1):
            if step > 1:
                self.eager.after_update()
            rows.append(rule.hyperparameters(done + step))
        table = self._table(chunk, rows)
        bounds = torch.tensor([chunk.start, chunk.stop])
        values = self._values
        if chunk.start == 0 or values is None:
            values = program.kept_values() if chunk.start else torch.zeros(program.width, dtype=torch.float64)
            self._values = values
            self._batches = chunk.start * chunk.rows[0].shape[1]
        with torch.no_grad():
            tensors = (program.detached, program.buffers, state, self._averages, program.held, chunk.rows)
            self._function(bounds, table, values, *tensors)
        rule.count_steps(chunk.steps)
        self._batches += len(chunk)
        program.meter(values.clone(), self._batches, kept=True)
        return values

    def _table(self, chunk: Chunk, rows: list[list[float]]) -> torch.Tensor:
        """Return the numbers of steps as the program reads them: (all steps of an epoch, 3 * groups)."""
        if self._numbers is None:
            self._numbers = torch.zeros(chunk.rows[0].shape[0], len(rows[0]), dtype=torch.float64)
        self._numbers[chunk.start : chunk.stop] = torch.tensor(rows, dtype=torch.float64)
        return self._numbers


class _Kept:
    """What a call of the program changes, to be put back where numbers have gone wrong in it.

    Args:
        step: step that has the program.
    """

    def __init__(self, step: EpochStep) -> None:
        program, rule = step.program, step.rule
        self._step, self._steps_done = step, rule.steps_done()
        self._sums, self._batches = step._values, step._batches
        sums = [] if self._sums is None else [self._sums]
        # Of the run's stateful parts what the program writes to: a frozen layer is not copied at each call.
        self._copies = TensorCopies([*program.detached, *program.buffers, *rule.state(), *step._averages, *sums])
        run = step.run
        self._rates = [group["lr"] for group in run.optimizer.param_groups]
        self._schedule = dict(run.scheduler.state_dict()) if run.scheduler_interval == "step" else None
        self.random = torch.get_rng_state()

    def still_finite(self, values: torch.Tensor) -> bool:
        """Look at the losses' sum, in what the program has added up, and at the parameters."""
        program = self._step.program
        parameters = torch.stack(torch._foreach_norm(program.detached))
        return math.isfinite(program.loss_sum(values) + parameters.sum())

    def restore(self) -> None:
        """Put everything back."""
        step, run, rule = self._step, self._step.run, self._step.rule
        self._copies.restore()
        rule.count_steps(self._steps_done - rule.steps_done())
        step._values, step._batches = self._sums, self._batches
        if self._schedule is not None:
            run.scheduler.load_state_dict(self._schedule)
        for group, rate in zip(run.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        torch.set_rng_state(self.random)


class EpochEvaluation(Evaluation):
    """Validation as one program: the loop over full batches is inside."""

    def __call__(self, loader: Iterable[Any]) -> int:
        """Measure all batches; return how many there were."""
        found = _rows(loader) if self.fast else None
        if found is None:
            return self.measure_eagerly(loader)
        rows, size = found
        leaves = list(tensors_in(rows))
        steps = len(leaves[0]) // size
        full = [leaf[: steps * size].unflatten(0, (steps, size)) for leaf in leaves] if steps else []
        if steps:
            self.verify(with_tensors(rows, [leaf[:size] for leaf in leaves]), lambda: self._measure_rows(full, 1))
        done = steps * size if steps and self.attempt(lambda: self._measure_rows(full, steps)) else 0
        return done // size + self.measure_eagerly(_cut(with_tensors(rows, [leaf[done:] for leaf in leaves]), size))

    def _measure_rows(self, rows: list[torch.Tensor], steps: int) -> None:
        program = self.program
        values = torch.zeros(program.width, dtype=torch.float64)
        self._function(values, torch.tensor([0, steps]), program.detached, program.buffers, program.held, rows)
        program.meter(values, steps)

    def function(self, program: LossProgram) -> Callable[..., Any]:
        """Return what is compiled: the loop over the batches."""
        return _evaluation_function(program)


def compile_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with a loop inside; with Inductor's C++ wrapper no Python runs in it."""
    return compile_exactly(function, cpp_wrapper=True)


def _epoch_function(
    program: LossProgram, rule: UpdateRule, accumulation_steps: int, decay: float
) -> Callable[..., Any]:
    from torch._higher_order_ops.while_loop import while_loop

    graph, trained = program.graph, program.trained
    parameter_count, buffer_count = len(trained), len(program.buffers)

    def chunk(
        bounds: torch.Tensor, table: torch.Tensor, values: torch.Tensor, parameters: Tensors, buffers: Tensors,
        moments: Tensors, averages: Tensors, held: Tensors, rows: Tensors,
    ) -> None:  # fmt: skip
        steps = rows[0].shape[0]
        own = [parameters[number] for number in trained]

        # Quoted, since what is compiled would have to make the generic type.
        def more(step: torch.Tensor, *carry: torch.Tensor) -> torch.Tensor:
            return step < bounds[1]

        def body(step: torch.Tensor, sums: torch.Tensor, *carry: torch.Tensor) -> "tuple[torch.Tensor, ...]":
            number: Any = step.item()  # a whole number that is known when the program runs
            torch._check(number >= 0)
            torch._check(number < steps)
            now = list(parameters)
            for place, value in zip(trained, carry[:parameter_count], strict=True):
                now[place] = value
            buffered = list(carry[parameter_count : parameter_count + buffer_count])
            moved = list(carry[parameter_count + buffer_count : parameter_count + buffer_count + len(moments)])
            followed = list(carry[parameter_count + buffer_count + len(moments) :])
            gradients: Tensors = []
            weights = []
            for part in range(accumulation_steps):
                found = graph(*now, *buffered, *[column[number][part] for column in rows], *held)
                buffered, seen = list(found[parameter_count:-1]), found[-1]
                sums = sums + seen
                weight = program.loss_count(seen)
                weights.append(weight)
                scaled = [g if accumulation_steps == 1 else g * weight for g in found[:parameter_count]]
                gradients = [a + b for a, b in zip(gradients, scaled, strict=True)] if part else scaled
            if accumulation_steps > 1:
                gradients = [gradient / sum(weights) for gradient in gradients]
            new, moved = rule(list(carry[:parameter_count]), gradients, moved, table[number])
            if followed:
                followed = [torch.lerp(mean, p, 1.0 - decay) for mean, p in zip(followed, new, strict=True)]
            return (step + 1, sums, *new, *[b.clone() for b in buffered], *moved, *followed)

        state = [*own, *buffers, *moments, *averages]
        carried = while_loop(more, body, (bounds[0].clone(), values.clone(), *state))
        values.copy_(carried[1])
        for old, new in zip(state, carried[2:], strict=True):
            old.copy_(new)

    return own_code(chunk)


def _evaluation_function(program: LossProgram) -> Callable[..., Any]:
    from torch._higher_order_ops.while_loop import while_loop

    def evaluation(
        values: torch.Tensor, bounds: torch.Tensor, parameters: Tensors, buffers: Tensors, held: Tensors, rows: Tensors
    ) -> None:
        steps = rows[0].shape[0]

        def more(step: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
            return step < bounds[1]

        def body(step: torch.Tensor, sums: torch.Tensor) -> "tuple[torch.Tensor, torch.Tensor]":
            number: Any = step.item()  # a whole number that is known when the program runs
            torch._check(number >= 0)
            torch._check(number < steps)
            found = program.graph(*parameters, *buffers, *[column[number] for column in rows], *held)
            return step + 1, sums + found[-1]

        values.copy_(while_loop(more, body, (bounds[0].clone(), torch.zeros_like(values)))[1])

    return own_code(evaluation)


def _rows(loader: Iterable[Any]) -> tuple[Any, int] | None:
    """Return an epoch's data in its order, and how many samples a batch has; None where that is not at hand."""
    source = quick(loader)
    size = getattr(source, "batch_size", None)
    if not size or not hasattr(source, "epoch_rows"):
        return None
    rows = source.epoch_rows()
    return None if rows is None else (rows, size)


def _no_rows(loader: Iterable[Any]) -> str:
    if not hasattr(quick(loader), "epoch_rows"):
        return f"train_loader is a {type(loader).__name__}; a TensorLoader has the epoch's data at hand"
    return "the epoch's data, in its order, does not fit into memory a second time"


def _cut(rows: Any, size: int) -> Iterator[Any]:
    """Cut rows into batches."""
    leaves = list(tensors_in(rows))
    for start in range(0, len(leaves[0]), size):
        yield with_tensors(rows, [leaf[start : start + size] for leaf in leaves])
