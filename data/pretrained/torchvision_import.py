"""Imports of torchvision and of timm, which needs it, where the wheel of torchvision was built for another torch."""

import importlib
import sys
import threading
from types import ModuleType

import torch

from data.pretrained.errors import ModelUnavailableError

_ARGUMENTS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # an operator is there as long as its library is
_lock = threading.RLock()  # two threads may not import a package that fails half-way


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import torchvision, or a module of it, also beside a build of torch that its compiled part doesn't fit.

    The wheel of PyPI is built for CUDA; beside the CPU build of torch its operators can't be loaded, and the import
    fails with `operator torchvision::nms does not exist`. They are for object detection: images, transforms and
    classifiers need none. So they are declared, without a body, and the import is done again.

    Args:
        name: module to import: `torchvision`, `torchvision.transforms.v2`, ...

    Raises:
        ModelUnavailableError: torchvision isn't installed, or doesn't fit torch in another way.
    """
    with _lock:
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            if "operator torchvision::" not in str(error) or _declared:
                raise ModelUnavailableError(f"torchvision can't be imported: {error}. {_install()}") from error
        except ImportError as error:
            raise ModelUnavailableError(f"torchvision can't be imported: {error}. {_install()}") from error
        for loaded in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator, arguments in _ARGUMENTS.items():
            library.define(operator + arguments)
        _declared.append(library)
        return importlib.import_module(name)


def import_timm(name: str = "timm") -> ModuleType:
    """Import timm, or a module of it.

    Raises:
        ModelUnavailableError: timm or torchvision isn't installed.
    """
    import_torchvision()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelUnavailableError(f"timm can't be imported: {error}. {_install()}") from error


def _install() -> str:
    return f"Install what pretrained models need: {sys.executable} -m pip install -r requirements-images.txt"
