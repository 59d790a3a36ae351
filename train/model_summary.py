"""What a model and a run are made of, in a few lines."""

import torch

from constants.counting import counted
from data.loaders import Loader, length_of


def summarize_model(model: torch.nn.Module) -> dict[str, int]:
    """Count a model's parameters.

    Returns:
        `parameters`, `trainable` (counts) and `bytes` (parameters and buffers).
    """
    parameters = list(model.parameters())
    stored = [*parameters, *model.buffers()]
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in stored),
    }


def model_lines(model: torch.nn.Module) -> list[str]:
    """Draw a table of a model's parts, first level only."""
    rows = [(name, part) for name, part in model.named_children() if any(True for _ in part.parameters())]
    width = max([len(name) for name, _ in rows] + [5])
    total = summarize_model(model)
    lines = [
        f"  {name:<{width}}  {type(part).__name__:<24} {summarize_model(part)['parameters']:>13,}"
        for name, part in rows[:20]
    ]
    own = sum(parameter.numel() for parameter in model.parameters(recurse=False))
    if own and rows:
        lines.append(f"  {'':<{width}}  {'parameters of its own':<24} {own:>13,}")
    if len(rows) > 20:
        lines.append(f"  ... {counted(len(rows) - 20, 'more part')}")
    return [
        f"{type(model).__name__}: {counted(total['parameters'], 'parameter')}, {total['trainable']:,} trainable, "
        f"{readable_bytes(total['bytes'])}",
        *lines,
    ]


def readable_bytes(count: int) -> str:
    """Write a size: `512 B`, `31.2 kB`, `70.5 MB`."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def loader_line(name: str, loader: Loader) -> str:
    """Describe a loader: samples, batches, workers."""
    dataset = getattr(loader, "dataset", None)
    known, length = length_of(dataset), length_of(loader)
    samples = "" if known is None else f"{counted(known, 'sample')}, "
    batches = "an unknown number of batches" if length is None else counted(length, "batch")
    size = getattr(loader, "batch_size", None)
    of = f" of {size}" if size else ""
    workers = counted(getattr(loader, "num_workers", 0), "worker")
    return f"{name}: {samples}{batches}{of} ({type(loader).__name__}, {workers})"
