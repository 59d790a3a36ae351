"""A model's weights as they are written."""

import torch


def plain_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's state_dict as safetensors takes it: contiguous, on the CPU, no memory shared (tied weights).

    Copying from a device is a host-device synchronisation. Of a sharded model all processes put each tensor together.

    Args:
        model: model whose weights are copied.
    """
    named = model.state_dict().items()
    whole = ((name, tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor) for name, tensor in named)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in whole}
