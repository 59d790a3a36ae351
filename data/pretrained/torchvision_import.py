"""Imports of torchvision and of timm, which needs it, where the wheel of torchvision was built for another torch."""

import importlib
import sys
import threading
from types import ModuleType

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.torchvision_operators import declare_when_imported

_lock = threading.RLock()  # two threads may not import a package that fails half-way


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """Import torchvision, or a module of it, also beside a build of torch that its compiled part doesn't fit.

    Args:
        name: module to import: `torchvision`, `torchvision.transforms.v2`, ...

    Raises:
        ModelUnavailableError: torchvision isn't installed, or doesn't fit torch in another way.
    """
    with _lock:
        if "torchvision" not in sys.modules:
            # What is left of an import that failed, before the operators were declared.
            for loaded in [each for each in sys.modules if each.startswith("torchvision.")]:
                del sys.modules[loaded]
            declare_when_imported()
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            raise ModelUnavailableError(f"torchvision can't be imported: {error}. {_install()}") from error


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
