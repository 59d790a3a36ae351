"""The numbers that forward and backward compute with. Weights, gradients and optimizer states stay as they are."""

from contextlib import AbstractContextManager, nullcontext

import torch
from beautilog import logger

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What the config's `precision` means on a device.

    Args:
        name: name of the precision. fp32; tf32: float32 whose matrix products round their factors to 10 bits, on CUDA;
            bf16 and fp16: automatic mixed precision, fp16 with a loss scale that adapts itself.
        device: device that the model is on.

    Attributes:
        scaler: scaler of the loss for fp16, None for other precisions.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self._device = name, device
        self._dtype = _AUTOCAST.get(name)
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        if name == "tf32" and device.type != "cuda":
            logger.warning(f"precision = tf32 needs a CUDA device; on {device} it is fp32")
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
            convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # it is there at run time only
            convolutions.fp32_precision = "tf32" if name == "tf32" else "ieee"

    def autocast(self) -> AbstractContextManager[None]:
        """Surround a forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)
