"""The epoch as one program: forward, backward, clip and update of many steps, without Python between them."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from data.batches import tensors_in, with_tensors
from data.tensor_rows import quick
from train.compiled.compiling import compile_exactly, own_code
from train.compiled.evaluation import Evaluation
from train.compiled.fast import FastStep, refuse_scaled_loss
from train.compiled.program import LossProgram
from train.compiled.rule import UpdateRule
from train.machine import SMALL_STEP_FLOPS
from train.steps.eager import EagerStep, Window
from train.steps.guard import Beginning

_LEAST_STEPS = 250  # of a call of the program


@dataclass
class Chunk:
    """Steps that are done in one go: `start` to `stop` of an epoch's."""

    rows: list[torch.Tensor]  # the epoch's, each (steps, window, batch, ...)
    start: int
    stop: int

    @property
    def steps(self) -> int:
        """How many optimizer steps it is."""
        return self.stop - self.start

    def __len__(self) -> int:
        return self.steps * self.rows[0].shape[1]


class EpochStep(FastStep):
    """All of a step compiled, and the loop over the steps inside. For a `TensorLoader` and Adam, AdamW or SGD.

    Args:
        trainer: a BaseTrainer.
        eager: the step that this one must equal.
        chunk: least steps between two looks at the running loss.
    """

    name = "epoch"

    def __init__(self, trainer: Any, eager: EagerStep, chunk: int) -> None:
        super().__init__(trainer, eager)
        # A call costs as much as a few steps of a small model, and Ctrl-C waits for its end.
        small = trainer.step_flops is not None and trainer.step_flops < SMALL_STEP_FLOPS
        self._chunk = max(chunk, _LEAST_STEPS) if small else chunk
        self._example: Any = None
        self._numbers: torch.Tensor | None = None
        self._values: torch.Tensor | None = None  # of the epoch so far, added up step by step
        self._batches = 0
        self.rule: UpdateRule | None = None
        self.evaluation = EpochEvaluation(trainer, compile_loop)

    @property
    def chunk(self) -> int:
        """Steps of an epoch's pieces."""
        return self._chunk if self.fast else 1

    def pieces(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[Chunk | Window]:
        """Yield what `__call__` takes: chunks of the epoch's rows, then the rest that is no full window.

        For its arguments see `EagerStep.pieces`.
        """
        self._example = None  # it holds the last epoch's data, which may be a copy
        rows = _rows(loader) if self.fast else None
        if rows is None:
            if self.fast:
                self.fall_back(_no_rows(loader))
            yield from self.eager.pieces(loader, skip, skipped)
            return
        skipped()
        size = loader.batch_size * self.eager.window
        leaves = list(tensors_in(rows))
        steps = len(leaves[0]) // size
        if steps:
            self._example = with_tensors(rows, [leaf[: loader.batch_size] for leaf in leaves])
            self.begin_epoch(self._example)
            full = [leaf[: steps * size].unflatten(0, (steps, self.eager.window, loader.batch_size)) for leaf in leaves]
            yield from self._chunks(full, min(skip, steps), steps)
        tail = with_tensors(rows, [leaf[steps * size :] for leaf in leaves])
        yield from self.eager.pieces(_cut(tail, loader.batch_size), max(0, skip - steps))

    def _chunks(self, rows: list[torch.Tensor], start: int, steps: int) -> Iterator[Chunk]:
        while start < steps:
            # One step while they are compared with eager's, or are eager; else up to the next look at the running loss.
            single = not self.fast or self._unchecked
            stop = start + 1 if single else min(steps, (start // self._chunk + 1) * self._chunk)
            yield Chunk(rows, start, stop)
            start = stop

    def build(self, batch: Any) -> None:
        """Record the hook and compile the loop around it."""
        refuse_scaled_loss(self.trainer)
        trained = [parameter for parameter in self.eager.update.parameters if parameter.requires_grad]
        self.program = LossProgram(self.trainer, batch, trained)
        parameters = [self.program.parameters[number] for number in self.program.trained]
        if any(tensor.dim() == 0 and tensor.dtype == torch.float64 for tensor in [*parameters, *self.program.buffers]):
            raise ValueError("torch's compiler loses changes of a float64 number; give the parameter the shape (1,)")
        self.rule = UpdateRule(self.trainer.optimizer, parameters, self.eager.update.clip)
        decay, self._averages = None, []
        if self.eager.average is not None:
            by_parameter = dict(zip(map(id, self.eager.average.parameters), self.eager.average.averages, strict=True))
            decay, self._averages = self.eager.average.decay, [by_parameter[id(p)] for p in parameters]
        self._function = compile_loop(_epoch_function(self.program, self.rule, self.eager.window, decay))

    def rule_changed(self) -> str | None:
        """Say what of the optimizer's settings, besides the learning rate, is no longer as it was compiled."""
        return self.rule.changed()

    def fits(self, piece: Chunk | Window) -> bool:
        """Say whether it is a chunk, not the rest of an epoch."""
        return isinstance(piece, Chunk)

    def windows_of(self, piece: Chunk | Window) -> Iterator[Window]:
        """Yield a piece's steps as eager takes them."""
        if isinstance(piece, Window):
            yield piece
            return
        for step in range(piece.start, piece.stop):
            batches = zip(*(rows[step].unbind() for rows in piece.rows), strict=True)
            yield Window([with_tensors(self._example, leaves) for leaves in batches])

    def run(self, piece: Chunk) -> None:
        """Do a chunk's steps in one call; where numbers go wrong in it, only those before the bad step."""
        guard = self.eager.update.guard
        if guard.blocked:
            guard.note_bad(piece.steps + guard.missed_steps(), guard.beginning(guard.missed_steps()))
            return
        before = _Kept(self)
        self._call(piece)
        if not before.still_finite():
            before.restore()
            for step in range(piece.start, piece.stop):
                if step > piece.start:
                    self.eager.after_update()
                before = _Kept(self)
                self._call(Chunk(piece.rows, step, step + 1))
                if not before.still_finite():
                    before.restore()
                    (window,) = self.windows_of(Chunk(piece.rows, step, step + 1))
                    guard.note_bad(piece.stop - step, Beginning(window.batches, before.random))
                    return
        guard.settle()

    def _call(self, piece: Chunk) -> None:
        program, rule = self.program, self.rule
        state = rule.state()
        done = rule.steps_done()
        rows = []
        for step in range(1, piece.steps + 1):
            if step > 1:
                self.eager.after_update()
            rows.append(rule.row(done + step))
        table = self._table(piece, rows)
        bounds = torch.tensor([piece.start, piece.stop])
        if piece.start == 0 or self._values is None:
            self._values = program.kept_values() if piece.start else torch.zeros(program.width, dtype=torch.float64)
            self._batches = piece.start * piece.rows[0].shape[1]
        with torch.no_grad():
            tensors = (program.detached, program.buffers, state, self._averages, program.held, piece.rows)
            self._function(bounds, table, self._values, *tensors)
        rule.count_steps(piece.steps)
        self._batches += len(piece)
        program.meter(self._values.clone(), self._batches, kept=True)

    def _table(self, piece: Chunk, rows: list[list[float]]) -> torch.Tensor:
        """Return the numbers of steps as the program reads them: (all steps of an epoch, 3 * groups)."""
        if self._numbers is None:
            self._numbers = torch.zeros(piece.rows[0].shape[0], len(rows[0]), dtype=torch.float64)
        self._numbers[piece.start : piece.stop] = torch.tensor(rows, dtype=torch.float64)
        return self._numbers


class _Kept:
    """What a call of the program changes, to be put back where numbers have gone wrong in it.

    Args:
        step: whose program it is.
    """

    def __init__(self, step: EpochStep) -> None:
        program, rule = step.program, step.rule
        self._step, self._steps_done = step, rule.steps_done()
        self._sums, self._batches = step._values, step._batches
        sums = [] if self._sums is None else [self._sums]
        self._tensors = [*program.detached, *program.buffers, *rule.state(), *step._averages, *sums]
        self._values = [tensor.clone() for tensor in self._tensors]
        trainer = step.trainer
        self._rates = [group["lr"] for group in trainer.optimizer.param_groups]
        self._schedule = dict(trainer.scheduler.state_dict()) if trainer._scheduler_interval == "step" else None
        self.random = torch.get_rng_state()

    def still_finite(self) -> bool:
        """Look at the losses' sum and the parameters."""
        parameters = torch.stack(torch._foreach_norm(self._step.program.detached))
        seen = self._step.program.loss_sum(self._step._values) + parameters.sum()
        return math.isfinite(seen)

    def restore(self) -> None:
        """Put everything back."""
        step, trainer = self._step, self._step.trainer
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        step.rule.count_steps(self._steps_done - step.rule.steps_done())
        step._values, step._batches = self._sums, self._batches
        if self._schedule is not None:
            trainer.scheduler.load_state_dict(self._schedule)
        for group, rate in zip(trainer.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        torch.set_rng_state(self.random)


class EpochEvaluation(Evaluation):
    """Validation as one program: the loop over full batches is inside."""

    def __call__(self, loader: Iterable[Any]) -> int:
        """Measure all batches; return how many there were."""
        rows = _rows(loader) if self.fast else None
        if rows is None:
            return self.measure_eagerly(loader)
        size, leaves = loader.batch_size, list(tensors_in(rows))
        steps = len(leaves[0]) // size
        full = [leaf[: steps * size].unflatten(0, (steps, size)) for leaf in leaves] if steps else []
        if steps:
            self.look(with_tensors(rows, [leaf[:size] for leaf in leaves]), lambda: self._measure_rows(full, 1))
        done = steps * size if steps and self.attempt(lambda: self._measure_rows(full, steps)) else 0
        return done // size + self.measure_eagerly(_cut(with_tensors(rows, [leaf[done:] for leaf in leaves]), size))

    def _measure_rows(self, rows: list[torch.Tensor], steps: int) -> None:
        program, function = self._program
        values = torch.zeros(program.width, dtype=torch.float64)
        function(values, torch.tensor([0, steps]), program.detached, program.buffers, program.held, rows)
        program.meter(values, steps)

    def function(self, program: LossProgram) -> Callable[..., Any]:
        """Return what is compiled: the loop over the batches."""
        return _evaluation_function(program)


def compile_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with a loop inside; with Inductor's C++ wrapper no Python runs in it."""
    return compile_exactly(function, cpp_wrapper=True)


def _epoch_function(program: LossProgram, rule: UpdateRule, window: int, decay: float | None) -> Callable[..., Any]:
    from torch._higher_order_ops.while_loop import while_loop

    graph, trained = program.graph, program.trained
    parameter_count, buffer_count = len(trained), len(program.buffers)

    def chunk(bounds, table, values, parameters, buffers, moments, averages, held, rows):
        steps = rows[0].shape[0]
        own = [parameters[number] for number in trained]

        def more(step, *carry):
            return step < bounds[1]

        def body(step, sums, *carry):
            number = step.item()
            torch._check(number >= 0)
            torch._check(number < steps)
            now = list(parameters)
            for place, value in zip(trained, carry[:parameter_count], strict=True):
                now[place] = value
            buffered = list(carry[parameter_count : parameter_count + buffer_count])
            moved = list(carry[parameter_count + buffer_count : parameter_count + buffer_count + len(moments)])
            followed = list(carry[parameter_count + buffer_count + len(moments) :])
            gradients, weights = None, []
            for part in range(window):
                found = graph(*now, *buffered, *[column[number][part] for column in rows], *held)
                buffered, seen = list(found[parameter_count:-1]), found[-1]
                sums = sums + seen
                weight = program.loss_count(seen)
                weights.append(weight)
                scaled = [g if window == 1 else g * weight for g in found[:parameter_count]]
                gradients = scaled if gradients is None else [a + b for a, b in zip(gradients, scaled, strict=True)]
            if window > 1:
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

    def evaluation(values, bounds, parameters, buffers, held, rows):
        steps = rows[0].shape[0]

        def more(step, sums):
            return step < bounds[1]

        def body(step, sums):
            number = step.item()
            torch._check(number >= 0)
            torch._check(number < steps)
            found = program.graph(*parameters, *buffers, *[column[number] for column in rows], *held)
            return step + 1, sums + found[-1]

        values.copy_(while_loop(more, body, (bounds[0].clone(), torch.zeros_like(values)))[1])

    return own_code(evaluation)


def _rows(loader: Any) -> Any:
    loader = quick(loader)
    return loader.epoch_rows() if hasattr(loader, "epoch_rows") and getattr(loader, "batch_size", None) else None


def _no_rows(loader: Any) -> str:
    if not hasattr(quick(loader), "epoch_rows"):
        return f"train_loader is a {type(loader).__name__}; a TensorLoader has the epoch's data at hand"
    return "the epoch's data, in its order, does not fit into memory a second time"


def _cut(rows: Any, size: int) -> Iterator[Any]:
    """Cut rows into batches."""
    leaves = list(tensors_in(rows))
    for start in range(0, len(leaves[0]), size):
        yield with_tensors(rows, [leaf[start : start + size] for leaf in leaves])
