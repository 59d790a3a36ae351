"""Settings of exporting a model again, `--export`."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ExportConfig:
    """What an export reads."""

    merge: bool = False
    """Write a whole model with the adapter merged into it, not the adapter."""
    device: str = "auto"
    """Where the model is merged: auto, cpu, cuda, cuda:1, mps."""
