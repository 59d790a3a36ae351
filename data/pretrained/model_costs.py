"""What a pretrained model costs: parameters, multiply-adds, memory of fine-tuning, time an image."""

import contextlib
import copy
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from data.pretrained.input_spec import InputSpec
from data.pretrained.network_head import logits_of
from data.pretrained.pretrained_model import PretrainedModel

_CLASSES = 10  # of the head that is trained; a body is much larger
# What kernels take for themselves and what lies between tensors, beside the tensors: by this the estimates for six
# models (resnet18 and 50, vit_small, convnext_tiny, efficientnet_b0, mobilenetv3_large) are .86 to 1.10 of what a
# process on a CPU really took.
_WORKSPACE = 1.25


@dataclass(frozen=True)
class ModelCosts:
    """What one model costs.

    Attributes:
        parameters: how many numbers the model has learnt, its own head included.
        gflops: billions of multiply-adds for one image of the model's own size, as papers and torchvision count.
        fine_tuning_memory: bytes that training all weights takes with AdamW in float32 at `batch_size` images: weights,
            gradients, two moments, what the backward pass keeps, what kernels take for themselves; estimated to about
            15 %. PyTorch itself comes on top.
        batch_size: images of a step that `fine_tuning_memory` is for.
    """

    parameters: int
    gflops: float
    fine_tuning_memory: int
    batch_size: int


def model_costs(model: PretrainedModel, batch_size: int = 32) -> ModelCosts:
    """Find out what a model costs, without running it: its operations are only followed (fake tensors).

    Args:
        model: the model.
        batch_size: images of a step of fine-tuning.
    """
    memory = round(_WORKSPACE * _peak_of_training(model, batch_size))
    return ModelCosts(_parameters(model), count_gflops(model), memory, batch_size)


def count_gflops(model: PretrainedModel) -> float:
    """Count the multiply-adds of one image, in billions: those of matrix products, convolutions and attention."""
    return count_gflops_of(model, model.input)


def count_gflops_of(network: nn.Module, spec: InputSpec) -> float:
    """Count the multiply-adds of one image in any network, in billions.

    Args:
        network: network in evaluation mode; it is not run.
        spec: how the network is fed.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    followed = _followed(network, mode).requires_grad_(False)  # the counter would follow gradients that there aren't
    with mode, torch.no_grad(), _no_fused_attention():
        pixels = torch.empty(1, spec.channels, *spec.size)
        with FlopCounterMode(display=False) as counter:
            followed(pixels)
        return float(counter.get_total_flops()) / 2 / 1e9


@contextlib.contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Let attention be the products that it is: the counter doesn't know the kernels of a CPU."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def milliseconds_an_image(model: PretrainedModel, device: torch.device | str | None = None, repeats: int = 3) -> float:
    """Measure how long the model takes for one image on a device, alone in its batch; the median of some passes.

    Args:
        model: the model; it is moved to the device.
        device: device to run on; None takes CUDA where it is.
        repeats: passes that are timed, after one that isn't.
    """
    place = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(place)
    pixels = torch.zeros(1, model.input.channels, *model.input.size, device=place)
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            model.features(pixels).sum().item()  # a synchronisation: the pass is done
            times.append(time.perf_counter() - started)
    return 1000 * sorted(times[1:])[repeats // 2]


def _parameters(model: PretrainedModel) -> int:
    names = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return sum(names.values())


def _followed(network: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Return a copy of a network whose parameters and buffers have a shape and no content."""
    copies: dict[int, object] = {}
    for value in (*network.parameters(), *network.buffers()):
        fake: torch.Tensor = mode.from_tensor(value.detach())
        copies[id(value)] = nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake
    return copy.deepcopy(network, copies)


def _peak_of_training(model: PretrainedModel, batch_size: int) -> int:
    """Return the most bytes that live at a time in two steps of training with AdamW: forward, backward and update.

    The steps are followed with tensors without content, so that they take no memory and little time. What a library's
    kernels take for themselves isn't seen.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    network = _followed(model.with_new_head(_CLASSES).train(), mode)
    live = _LiveBytes()
    live.hold(*network.parameters(), *network.buffers())
    optimizer = torch.optim.AdamW(network.parameters())
    with mode, live:
        for _ in range(2):  # the moments are there from the second on
            optimizer.zero_grad()
            pixels = torch.empty(batch_size, model.input.channels, *model.input.size)
            labels = torch.zeros(batch_size, dtype=torch.long)
            functional.cross_entropy(logits_of(network(pixels)), labels).backward()
            optimizer.step()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that live, while it is on.

    Attributes:
        peak: most bytes that were alive at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: dict[weakref.ref[torch.UntypedStorage], int] = {}

    def hold(self, *tensors: torch.Tensor) -> None:
        """Count tensors until they are gone; those that share memory count once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            reference = weakref.ref(storage, self._gone)
            if reference not in self._known:
                self._known[reference] = storage.nbytes()
                self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)

    def _gone(self, reference: "weakref.ref[torch.UntypedStorage]") -> None:
        self._now -= self._known.pop(reference, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it gives."""
        given = func(*args, **(kwargs or {}))
        self.hold(*(each for each in tree_leaves(given) if isinstance(each, torch.Tensor)))
        return given
