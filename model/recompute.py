"""Activation checkpointing: forget what a layer computed and compute it again in backward, to save memory."""

import functools
from collections.abc import Iterable

import torch
from torch.utils.checkpoint import checkpoint


def recompute_activations(modules: Iterable[torch.nn.Module]) -> None:
    """Let modules keep only their inputs in training. Gradients are the same, backward takes a forward more.

    Args:
        modules: modules, such as the layers of a transformer; each is called as before.
    """
    for module in modules:
        module.forward = _recomputed(module)


def _recomputed(module: torch.nn.Module):
    forward = module.forward

    @functools.wraps(forward)
    def run(*args, **kwargs):
        if not (module.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
