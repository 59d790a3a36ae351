"""torch.compile, as the fast forms use it, and what its errors mean."""

import types
from collections.abc import Callable
from typing import Any

import torch

from train.compiled.program import ImpureLoss


def own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with a code object of its own: torch counts compilations by it, for all runs of a process."""
    code = function.__code__.replace()
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )


def compile_exactly(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function of tensors, for one set of shapes, so that it computes what it would without.

    Args:
        function: function of tensors.
        options: further options of torch's compiler (Inductor), by name.
    """
    # torch's own random numbers: the masks of dropout are then those of the eager form, and resume as they do.
    return torch.compile(function, fullgraph=True, dynamic=False, options={"fallback_random": True, **options})


def why_not(error: Exception) -> str:
    """Say in a sentence why something could not be compiled."""
    if isinstance(error, ImpureLoss | ValueError):
        return str(error)
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if "Cxx" in type(error).__name__ or "No working C++ compiler" in str(error):
        return "there is no C++ compiler here, which torch.compile needs on the CPU (Debian: apt install g++)"
    return f"it can't be compiled: {type(error).__name__}: {text}"
