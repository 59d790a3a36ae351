"""The state that a step changes, to be compared with another form's, and put back."""

from train.context import RunContext
from train.side_effects import namespaces_of, tensors_of
from train.snapshot import Snapshot, TensorCopies


class TrainingState:
    """All tensors that a step changes, and the states of everything else that it does.

    Args:
        run: run whose state is copied.
        whole: whether all state is copied, so that there is a `restore`; else the tensors only.

    Attributes:
        parameters: parameters of the optimizer and of all modules, and the moving averages, each once.
        buffers: buffers of all modules, also those that no checkpoint has.
        values: copies of `parameters` and then of `buffers`.
    """

    def __init__(self, run: RunContext, whole: bool = True) -> None:
        places = list(namespaces_of(run))
        found = [*run.update.parameters, *(run.average.averages if run.average is not None else [])]
        found += tensors_of(places, "_parameters")
        self.parameters = [tensor.detach() for tensor in {id(tensor): tensor for tensor in found}.values()]
        self.buffers = tensors_of(places, "_buffers")
        self._tensors = TensorCopies([*self.parameters, *self.buffers])
        self.values = self._tensors.values
        rest = [entry for entry in run.stateful_parts() if entry.by_step and not entry.tensors_only] if whole else []
        self._rest = Snapshot(rest)

    def restore(self) -> None:
        """Put everything back, where it is: a captured graph knows the tensors' addresses."""
        self._tensors.restore()
        self._rest.restore()
