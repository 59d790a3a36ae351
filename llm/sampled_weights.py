"""Which weights a row is sampled from: their identity, which changes with every change of a number."""

from collections.abc import Iterable

from torch import Tensor, nn

from llm.engine_error import EngineError
from model.lora import LoraAdapter


def mark_of(tensor: Tensor) -> tuple[int, int]:
    """Return a tensor's address and version: another one while it is held has others, and so has it after a change."""
    # PyTorch counts the changes of each tensor; of tensors made in inference mode it doesn't, and they stay.
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class WeightsIdentity:
    """Tensors and their versions: equal to another one only while it is of the same numbers.

    It holds the tensors, so that their memory can't be given to others meanwhile.

    Args:
        tensors: the tensors.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._marks = self._now()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, WeightsIdentity) and self._marks == other._marks)

    def __hash__(self) -> int:
        return hash(self._marks[:1])

    @property
    def last(self) -> tuple[int, int]:
        """Address and version of the last tensor: an adapter's, where there is one."""
        return self._marks[-1]

    @property
    def unchanged(self) -> bool:
        """Whether no number was changed since."""
        return self._marks == self._now()

    def _now(self) -> tuple[tuple[int, int], ...]:
        return tuple(mark_of(each) for each in self._tensors)


class SampledWeights:
    """A model's weights with one adapter, as they were when a request came.

    Args:
        model: the model.
        name: name of the adapter; None for none.
        adapter: the adapter.
    """

    def __init__(self, model: nn.Module, name: str | None, adapter: LoraAdapter | None) -> None:
        self.name = name
        self.adapter = None if adapter is None else adapter.sharing()
        self.identity = identity_of(model, self.adapter)

    def require_unchanged(self) -> None:
        """Refuse to go on with rows whose beginning was computed by other weights.

        Raises:
            EngineError: somebody has changed the weights.
        """
        if not self.identity.unchanged:
            what = "the model" if self.name is None else f"the model or its adapter {self.name!r}"
            raise EngineError(
                f"{what} was changed while it was sampled from: let samples end before a training step, or sample from "
                "a version that is held"
            )


def identity_of(model: nn.Module, adapter: LoraAdapter | None) -> WeightsIdentity:
    """Return the identity of a model's weights with an adapter's, as they are now."""
    return WeightsIdentity([*model.parameters(), *(adapter.parameters() if adapter is not None else ())])
