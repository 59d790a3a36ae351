"""The step as a CUDA graph: every kernel of it is launched by one call, so that a small model doesn't wait for Python.

Forward, backward, clip, update and moving average of one or eight steps are captured once and replayed on batches that
are copied into the place where the capture found them. Learning rates are numbers on the device: a scheduler changes
them without a new capture. What is left of an epoch, less than a full step input, is done in eager form.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from train.compiled.epoch import Chunk, EpochStep
from train.compiled.evaluation import Evaluation
from train.compiled.fast import FastStep, refuse_scaled_loss
from train.compiled.program import LossProgram
from train.compiled.rule import UpdateRule
from train.compiled.state import TrainingState
from train.context import RunContext
from train.steps.eager import EagerStep, StepInput
from train.steps.update import note_step

_AT_ONCE = 8  # steps of a replay, where there are as many to do
_WARM_UPS = 3  # runs before a capture, for what libraries set up at their first calls


class GraphStep(EpochStep):
    """All of a step, or of eight, replayed. For a `TensorLoader` on the device and Adam, AdamW or SGD in float32.

    Args:
        run: run whose steps are done.
        eager: eager step that this one must equal.
        chunk: least number of steps between two looks at the running loss.
    """

    name = "graph"

    def __init__(self, run: RunContext, eager: EagerStep, chunk: int) -> None:
        super().__init__(run, eager, chunk)
        self.evaluation = GraphEvaluation(run, FastStep.compile)

    def build(self, batch: Any) -> None:
        """Record the loss function; it is captured at its first run."""
        refuse_scaled_loss(self.run)
        update = self.eager.update
        trained = [parameter for parameter in update.parameters if parameter.requires_grad]
        self._program = program = LossProgram(self.run, batch, trained)
        self._trained = [program.parameters[number] for number in program.trained]
        if len(self._trained) < len(update.parameters):
            raise ValueError("some parameters of the optimizer have no gradient")
        self._rule = rule = UpdateRule(self.run.optimizer, self._trained, update.clip)
        rule.state()  # the optimizer's tensors must be there before a capture, and stay where they are
        device, groups = self.run.device, len(rule.settings)
        self._rates = torch.zeros(_AT_ONCE, groups, dtype=torch.float32, device=device)
        self._known_rates: list[list[float]] = []
        self._sums = torch.zeros(program.width, dtype=torch.float64, device=device)
        self._replays: dict[int, Replayed] = {}
        self._fresh = True

    def do_steps(self, step_input: StepInput) -> None:
        """Replay a chunk's steps, eight or one at a time."""
        if not isinstance(step_input, Chunk):
            raise TypeError("the graphs take chunks of an epoch's rows only")
        chunk, program = step_input, self.program
        if chunk.start == 0 or self._fresh:
            self._sums.copy_(program.kept_values()) if chunk.start else self._sums.zero_()
            self._batches = chunk.start * chunk.rows[0].shape[1]
            self._fresh = False
        step = chunk.start
        while step < chunk.stop:
            size = _AT_ONCE if chunk.stop - step >= _AT_ONCE else 1
            self._set_rates(size)
            if size not in self._replays:
                self._replays[size] = Replayed(self._steps(size), self.run)
            self._replays[size](*(rows[step : step + size] for rows in chunk.rows))
            step += size
            if step < chunk.stop:
                self.eager.after_update()
        note_step(self.run.optimizer)
        self._batches += len(chunk)
        program.meter(self._sums.clone(), self._batches, kept=True)

    def _set_rates(self, size: int) -> None:
        """Put the learning rates of the next steps on the device, if they are others than those that are there."""
        rates = []
        for number in range(size):
            if number:
                self.eager.after_update()
            rates.append([group["lr"] for group in self.run.optimizer.param_groups])
        if rates != self._known_rates[:size]:
            self._rates[:size].copy_(torch.tensor(rates, dtype=torch.float32))  # to the device; nothing waits for it
            self._known_rates = rates

    def _steps(self, size: int) -> Callable[..., None]:
        """Return what is captured: `size` steps on rows (size, step input, batch, ...)."""
        update, average = self.eager.update, self.eager.average

        def steps(*rows: torch.Tensor) -> None:
            for number in range(size):
                step_inputs = zip(*(column[number].unbind() for column in rows), strict=True)
                self._accumulate(step_inputs)
                update.rates = list(self._rates[number].unbind())
                update()
                update.rates = None
                update.guard.keep()
                if average is not None:
                    average.update()

        return steps

    @torch.no_grad()
    def _accumulate(self, batches: Iterable[Sequence[torch.Tensor]]) -> None:
        """Set the parameters' gradients to the mean over a step input's batches, and add up what the meter gets."""
        program, count = self.program, len(self._trained)
        sums: list[torch.Tensor] | tuple[torch.Tensor, ...] = []
        total: float | torch.Tensor = 1.0
        for number, leaves in enumerate(batches):
            found = program.graph(*program.detached, *program.buffers, *leaves, *program.held)
            for buffer, new in zip(program.buffers, found[count:-1], strict=True):
                buffer.copy_(new)
            self._sums.add_(found[-1])
            self.eager.update.guard.see(program.loss_sum(found[-1]))
            weight = program.loss_count(found[-1])
            scaled = list(found[:count]) if self.eager.accumulation_steps == 1 else [g * weight for g in found[:count]]
            sums = torch._foreach_add(sums, scaled) if number else scaled
            total = total + weight if number else weight
        for parameter, gradient in zip(self._trained, sums, strict=True):
            parameter.grad = gradient if self.eager.accumulation_steps == 1 else gradient / total


class GraphEvaluation(Evaluation):
    """Validation batch by batch, each replayed."""

    def function(self, program: LossProgram) -> Callable[..., Any]:
        """Return what takes the program's inputs and gives its values."""
        fixed = [*program.detached, *program.buffers]
        leaves = len(program.shapes)
        replayed = Replayed(lambda *batch: program.graph(*fixed, *batch, *program.held)[-1], self.run)
        return lambda *inputs: (replayed(*inputs[len(fixed) : len(fixed) + leaves]),)

    def compiled(self, program: LossProgram) -> Callable[..., Any]:
        """Return the replayed program: there is nothing to compile."""
        return self.function(program)


class Replayed:
    """A function of tensors, captured as a CUDA graph at its first call.

    Args:
        function: function that asks for kernels only, on its inputs and on tensors that stay where they are.
        run: run whose state is put back after the calls that warm up.
    """

    def __init__(self, function: Callable[..., Any], run: RunContext) -> None:
        self._function, self._run = function, run
        self._inputs: list[torch.Tensor] = []
        self._captured = False
        self._replay: Callable[[], None]
        self._result: Any = None

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """Copy the inputs in, replay; returns the result, which the next call overwrites."""
        if not self._captured:
            self._inputs = [tensor.clone() for tensor in inputs]
            self._capture()
            self._captured = True
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)
        self._replay()
        return self._result

    def _capture(self) -> None:
        before = TrainingState(self._run)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        before.restore()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # a capture runs nothing
            self._result = self._function(*self._inputs)
        self._replay = graph.replay
