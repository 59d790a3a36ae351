"""Linear layers of one input, also with their weights in the order in which few rows are multiplied fastest."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.lora import Segments, adapted_linears, add_adapters, each_apart

# With fewer rows reading the weights is what takes time, with more the order in memory makes no difference.
_FEWEST, _MOST = 4, 128


class FlatLinear(nn.Module):
    """A weight and perhaps a bias, without numbers yet: to draw random ones first would take seconds.

    Args:
        inputs: numbers that go in.
        outputs: numbers that come out.
        bias: whether it has a bias.
        device: where they are.
        dtype: their dtype.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool, device: torch.device | str | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(outputs, device=device, dtype=dtype)) if bias else None


@dataclass(frozen=True, eq=False)
class _Packed:
    """Weights of several layers below one another, in oneDNN's order for few rows; and which weights they are."""

    weight: Tensor
    plain: Tensor  # the same in the usual order; the layers' own weights are views of it
    bias: Tensor | None
    of: tuple[tuple[int, int], ...]  # address and version of each weight

    def product(self, inputs: Tensor) -> Tensor:
        """Return the outputs of all layers side by side."""
        if _FEWEST <= len(inputs) <= _MOST:
            return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
        return functional.linear(inputs, self.plain, self.bias)


class LinearGroup:
    """Linear layers that share their input.

    Args:
        layers: weight and bias of each by its name in the module around it.
    """

    def __init__(self, **layers: "FlatLinear") -> None:
        self._names, self._layers = tuple(layers), tuple(layers.values())
        self._sizes = [layer.weight.shape[0] for layer in self._layers]
        self._packed: _Packed | None = None

    def __call__(self, inputs: Tensor, prefix: str, segments: Segments) -> Sequence[Tensor]:
        """Return of each layer its outputs (T, outputs), with what adapters add to them.

        Args:
            inputs: (T, inputs).
            prefix: path of the module around the layers, with a dot; names the layers to adapters.
            segments: runs of tokens with an adapter.
        """
        names = [prefix + name for name in self._names]
        if self._packed is not None and not torch.is_grad_enabled():
            if self._packed.of == self._versions():
                return self._from_packed(self._packed, inputs, names, segments)
            self._packed = None  # the weights are others now
        layers = [(name, layer.weight, layer.bias) for name, layer in zip(names, self._layers, strict=True)]
        return adapted_linears(inputs, layers, segments)

    def pack(self) -> int:
        """Keep a second copy of the weights for few rows; returns its bytes, 0 where there is no use for it.

        The weights themselves are put below one another, so that one product serves all layers. The copy is let go
        where a weight changes. Weights that are trained are not packed.
        """
        weights = [layer.weight for layer in self._layers]
        usable = torch.backends.mkldnn.is_available() and not any(
            weight.requires_grad or weight.is_inference() or weight.device.type != "cpu"
            or weight.dtype not in (torch.float32, torch.bfloat16) for weight in weights
        )  # fmt: skip
        if not usable:
            return 0
        with torch.no_grad():
            biases = [layer.bias for layer in self._layers if layer.bias is not None]
            bias = torch.cat(biases) if biases else None
            if biases and len(biases) != len(weights):
                return 0
            joined = torch.cat(weights) if len(weights) > 1 else weights[0].detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(joined, 32)
            if len(weights) > 1:
                parts = joined.split([len(weight) for weight in weights])
                for weight, part in zip(weights, parts, strict=True):
                    weight.data = part
        self._packed = _Packed(packed, joined, bias, self._versions())
        return joined.nbytes

    def unpack(self) -> None:
        """Let the second copy go."""
        self._packed = None

    def _versions(self) -> tuple[tuple[int, int], ...]:
        return tuple((layer.weight.data_ptr(), layer.weight._version) for layer in self._layers)

    def _from_packed(
        self, packed: _Packed, inputs: Tensor, names: Sequence[str], segments: Segments
    ) -> Sequence[Tensor]:
        together = each_apart(packed.product, inputs, segments.spans)
        if segments.runs:
            add_adapters(together, self._sizes, inputs, names, segments)
        return together.split(self._sizes, dim=1)
